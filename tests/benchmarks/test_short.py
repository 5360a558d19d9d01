"""Every benchmark in short, and the page of their tables."""

from __future__ import annotations

import importlib
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from benchmarks import short
from benchmarks.short import ROWS, Row
from tests.support.toolkit import photographs
from tools_zoo.training.cards import command_line

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("photos")
    for number, picture in enumerate(photographs(2, 80, 100)):
        Image.fromarray(picture).save(place / f"{number}.png")
    return place


class TestShort:
    @pytest.fixture
    def started(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Names of the benchmarks that were started; each writes its JSON file, "bad" fails."""
        names: list[str] = []
        rows = tuple(Row(name, name.title(), name, "--images {images}") for name in ("one", "bad", "two"))

        def pretend(command: list[str], stdout: Any, **_: Any) -> subprocess.CompletedProcess[str]:
            name, words = command[2].removeprefix("benchmarks."), command[3:]
            names.append(name)
            if name == "bad":
                stdout.write("much\nbad: error: no such thing\n")
                return subprocess.CompletedProcess(command, 2)
            written = {"version": vars(short)["source_version"](), "tables": f"| {name} {len(names)} |"}
            written["command"] = command_line(f"python -m benchmarks.{name}", words)
            Path(words[-1]).write_text(json.dumps(written))
            return subprocess.CompletedProcess(command, 0)

        monkeypatch.chdir(tmp_path)
        (tmp_path / "docs").mkdir()
        monkeypatch.setattr(short, "ROWS", rows)
        monkeypatch.setattr(short, "subprocess", SimpleNamespace(run=pretend, STDOUT=subprocess.STDOUT))
        monkeypatch.setattr(short, "source_version", lambda: "v1")
        return names

    def test_a_failure_is_told_and_the_others_are_kept(
        self, started: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert short.main([]) == 1
        assert started == ["one", "bad", "two"]
        told = capsys.readouterr().err
        assert "[2/3] bad: failed: bad: error: no such thing (exit code 2, runs/bench/bad.log)" in told
        assert told.splitlines()[-1] == "benchmarks.short: failed: bad"
        page = Path("docs/bench.md").read_text()
        assert "## One\n\n| one 1 |" in page
        assert "## Two\n\n| two 3 |" in page
        assert "## Bad\n\nNot measured yet." in page
        assert "PyTorch threads" in page
        assert "scikit-image" in page
        assert str(Path.cwd()) not in page

    def test_only_what_this_version_has_not_measured_is_measured(
        self, started: list[str], monkeypatch: pytest.MonkeyPatch, folder: Path
    ) -> None:
        arguments = ["--only", "one", "two", "--images", str(folder)]
        assert short.main(arguments) == 0
        assert short.main(arguments) == 0
        assert started == ["one", "two"]
        assert short.main(["--again", *arguments]) == 0
        assert started == ["one", "two"] * 2
        monkeypatch.setattr(short, "source_version", lambda: "v2")
        assert short.main(["--only", "two", "--images", str(folder)]) == 0
        page = Path("docs/bench.md").read_text()
        assert started[4:] == ["two"]
        assert "| one 3 |" in page  # as it was
        assert "| two 5 |" in page
        assert "2 photographs of" in page

    def test_mistakes_are_told_in_one_line(self, started: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        Path("none").mkdir()
        for arguments, message in (
            (["--only", "three"], "unknown benchmark 'three': choose from one, bad, two"),
            (["--images", "none"], "none: the folder holds no image files"),
            (["--page", "no/page.md"], "no: no such folder"),
        ):
            assert short.main(arguments) == 2
            assert message in capsys.readouterr().err
        assert not started

    def test_every_row_names_a_benchmark_that_takes_its_words(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        names = [row.name for row in ROWS]
        assert len(set(names)) == len(names)
        places = dict.fromkeys(("images", "few", "other", "runs"), tmp_path)
        for row in ROWS:
            benchmark = importlib.import_module(f"benchmarks.{row.module}")
            if hasattr(benchmark, "__path__"):
                benchmark = importlib.import_module(f"benchmarks.{row.module}.__main__")
            monkeypatch.setattr(benchmark, "run", lambda arguments: 0 if arguments.json.stem in names else 3)
            assert benchmark.main(short.arguments_of(row, places, tmp_path)) == 0
