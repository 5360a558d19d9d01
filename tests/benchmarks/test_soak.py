"""A few mutated files through everything that reads files, a case of each promise, and what counts as a fault."""

from __future__ import annotations

import mmap
import os
import struct
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.soak.__main__ import main
from benchmarks.soak.mutations import OF_BYTES, OF_JSON, OF_SAFETENSORS, mutated
from benchmarks.soak.promises.commands import COMMANDS, left, written
from benchmarks.soak.promises.scarcity import Unavailable
from benchmarks.soak.promises.table import PROMISES, Promise, run_promise
from benchmarks.soak.running import FINE, run_cases
from benchmarks.soak.targets import TARGETS, Target
from benchmarks.soak.watching import fault_of
from restore_env import ImageRestoreError

pytestmark = pytest.mark.usefixtures("one_thread")
CASES = {
    "images": 120,
    "super-resolution": 3,
    "toolbox.json": 40,
    "record": 25,
    "policy": 25,
    "levels.json": 30,
    "YAML": 30,
}


@pytest.mark.parametrize("name", TARGETS)
def test_whole_files_are_used_and_mutated_ones_are_used_or_refused(name: str, tmp_path: Path) -> None:
    files, use = TARGETS[name].prepare(tmp_path)
    for data in files[:: 1 + len(files) // 4]:
        assert fault_of(partial(use, data, np.random.default_rng(1))) == ("used", "")
    cases = run_cases(TARGETS[name], name, tmp_path, 0, count=CASES.get(name, 8))
    assert [case for case in cases if case[1] not in (*FINE, "begun")] == []


def test_cases_depend_on_seed_and_number_alone(tmp_path: Path) -> None:
    def outcomes(first: int, count: int, seed: int = 0) -> list[Any]:
        return list(run_cases(TARGETS["images"], "images", tmp_path, seed, first, count))

    assert outcomes(3, 2) == outcomes(0, 5)[6:]
    assert outcomes(0, 9) != outcomes(0, 9, seed=1)


ODD_HEADER = struct.pack("<Q", 41) + rb'{"__metadata__": {"a": 1, "b": "\udcff"}}'
"""Of a safetensors file: metadata that are a number, and a text that is not Unicode."""


@pytest.mark.parametrize("mutations", [OF_BYTES, OF_JSON, OF_SAFETENSORS])
@pytest.mark.parametrize("data", [b"", b"{}", b'{"a": [1, {"b": "c"}]}', bytes(range(256)), ODD_HEADER])
def test_any_bytes_can_be_mutated(data: bytes, mutations: Any) -> None:
    changed = [mutated(data, mutations, np.random.default_rng(seed)) for seed in range(50)]
    assert len(set(changed)) > 1 or not data


def refuse(message: str) -> None:
    raise ImageRestoreError(message)


def grow() -> None:
    with mmap.mmap(-1, 2**26) as memory:  # new pages, whatever the process has kept of freed memory
        memory[:: mmap.PAGESIZE] = bytes(2**26 // mmap.PAGESIZE)


FAULTS: dict[str, Any] = {
    "TypeError": lambda: len(3),  # type: ignore[arg-type]
    "UnicodeDecodeError": lambda: b"\xff".decode(),
    "odd message": lambda: (_ for _ in ()).throw(ValueError("two\nlines")),
    "printed": lambda: os.write(1, b"hello"),
    "slow": lambda: sum(time.process_time() * 0 for _ in range(10**5)),
    "large": grow,
    "refused": lambda: refuse("a.png: damaged"),
    "used": lambda: None,
}


@pytest.mark.parametrize("outcome", FAULTS)
def test_what_counts_as_a_fault(outcome: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if outcome == "slow":
        monkeypatch.setattr("benchmarks.soak.watching.MOST_SECONDS", 1e-4)
    if outcome == "large":
        if sys.platform != "linux":
            pytest.skip("memory is measured on Linux alone")
        monkeypatch.setattr("benchmarks.soak.watching.MOST_BYTES", 2**24)
    assert fault_of(FAULTS[outcome])[0] == outcome


def test_the_command_counts_and_survives_a_crash(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--only", "YAML", "--count", "5", "--seconds", "60"]) == 0
    assert "YAML: 5 cases" in capsys.readouterr().out
    assert main(["--only", "nothing"]) == 2
    assert "unknown row 'nothing': choose from kills" in capsys.readouterr().err


def test_a_target_that_is_at_fault_is_found(tmp_path: Path) -> None:
    broken = Target(lambda _: ([b"x"], lambda data, rng: getattr(data, "no_such_thing")))  # noqa: B009
    cases = list(run_cases(broken, "broken", tmp_path, 0, count=2))
    assert [outcome for _, outcome, _ in cases] == ["begun", "AttributeError"] * 2


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the rows are measured on Linux alone")
@pytest.mark.parametrize("name", PROMISES)
def test_a_case_of_each_promise(name: str, tmp_path: Path) -> None:
    (tmp_path / "row").mkdir()
    cases = list(run_promise(name, tmp_path / "row", seed=5, first=len(COMMANDS) - 1, count=1))
    assert [outcome for _, outcome, _ in cases] in (["begun", "kept"], ["begun", "skipped"]), cases


def test_a_promise_is_tried_until_it_is_enough_and_broken_by_an_assertion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def case(number: int, rng: np.random.Generator) -> int:
        if number == 1:
            raise AssertionError("two\nlines")
        if number == 2:
            raise Unavailable("no file system")
        return 3

    row = Promise("all is well", lambda _: case, "times", wanted=9, share=1)
    monkeypatch.setattr("benchmarks.soak.promises.table.PROMISES", {"well": row})
    cases = [case for case in run_promise("well", tmp_path, 0) if case[1] != "begun"]
    kept = [(number, "kept", "3") for number in (0, 3, 4)]
    assert cases == [kept[0], (1, "broken", "two lines"), (2, "skipped", "no file system"), *kept[1:]]
    assert len(list(run_promise("well", tmp_path, 0, wanted=3))) == 2
    assert len(list(run_promise("well", tmp_path, 0, seconds=0.0))) == 2
    assert main(["--only", "YAML", "--count", "2"]) == 0
    assert "| YAML | 2 files |  | 0 |" in capsys.readouterr().out


def test_what_a_training_has_written_is_compared_but_for_its_seconds(tmp_path: Path) -> None:
    def digests(seconds: float, weight: float) -> dict[str, str]:
        torch.save({"step": 2, "seconds": seconds, "network": {"weight": torch.tensor([weight])}}, out / "a.pt")
        return written("train tools", tmp_path)

    out = tmp_path / "out"
    out.mkdir()
    (out / "events.out.tfevents.7").touch()
    (out / ".imagerestore-7.part").touch()
    (tmp_path / "tmp").mkdir()
    assert digests(1.0, 0.5) == digests(2.0, 0.5) != digests(1.0, 0.25)
    assert digests(1.0, 0.5).keys() == {"a.pt", "events"}
    assert left(tmp_path) == ["out/.imagerestore-7.part"]
