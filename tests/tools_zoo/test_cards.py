"""What a card says of the code that ran."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tools_zoo.training import cards


@pytest.fixture
def commit(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The commit that git tells: its only item."""
    head = ["aaa"]

    def run(command: Sequence[str], **_: Any) -> SimpleNamespace:
        return SimpleNamespace(stdout=head[0] if "rev-parse" in command else "")

    monkeypatch.setattr(cards, "subprocess", SimpleNamespace(run=run, SubprocessError=subprocess.SubprocessError))
    cards.source_version.cache_clear()
    yield head
    cards.source_version.cache_clear()


def test_the_version_is_that_of_the_code_as_the_run_began(commit: list[str]) -> None:
    assert cards.command_line("python -m x", ["--seed", "1"]) == "python -m x --seed 1"
    commit[0] = "bbb"
    assert cards.source_version().endswith(", commit aaa")


def test_a_card_may_name_files_whose_names_are_no_text(tmp_path: Path) -> None:
    cards.write_card(tmp_path / "README.md", "images: \udcff.png\n")
    assert (tmp_path / "README.md").read_text() == "images: \\udcff.png\n"
