"""JSON of strangers, and messages in one line."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

from restore_env import ImageRestoreError
from restore_env.errors import LONGEST, one_line
from restore_env.plain_data import DEEPEST, FromFile, is_file_name, parse_json
from restore_env.resolve import import_named


@pytest.mark.parametrize("text", ["", "{", b"\xff\xfe", "[" * 10**6, "1" * 5000])
def test_what_is_no_json_is_one_line_that_names_it(text: str | bytes) -> None:
    with pytest.raises(ImageRestoreError, match=r"\Afile: not .*JSON: .*\Z"):
        parse_json(text, "file")


def test_nesting_has_a_limit() -> None:
    def nested(depth: int) -> str:
        return '{"a": [' * (depth // 2) + "1" + "]}" * (depth // 2)

    assert json.dumps(parse_json(nested(DEEPEST), "file")) == nested(DEEPEST)
    with pytest.raises(ImageRestoreError, match="deeper than"):
        parse_json(nested(DEEPEST + 2), "file")


def test_messages_are_one_short_printable_line() -> None:
    assert str(ImageRestoreError("two\nlines \x1b[31m\udcff\0")) == r"two lines \x1b[31m\udcff\x00"
    long = str(ImageRestoreError("start" + "x" * 5000 + "end"))
    assert len(long) <= LONGEST
    assert long.startswith("start")
    assert long.endswith("end")
    assert one_line(KeyError()) == "KeyError"


def test_a_files_text_stays_one_however_it_is_copied() -> None:
    text = FromFile("os:abort")
    for copied in (text, copy.deepcopy(text), copy.copy(text), pickle.loads(pickle.dumps(text))):
        assert copied == "os:abort"
        with pytest.raises(ValueError, match="'os:abort' comes from a data file"):
            import_named(copied, "toolbox", "a factory")
    assert import_named("os:getpid", "toolbox", "a factory") is not None


@pytest.mark.parametrize("name", ["dim", "denoise_2", "A-b_3"])
def test_names_of_files(name: str) -> None:
    assert is_file_name(name)
    assert not is_file_name(f"../{name}")
    assert not is_file_name(f"{name}\n")
