"""Timings of the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import restoring, speed
from benchmarks.restoring import HERE, THIS, Case, Timing


def test_photographs_of_the_sizes_that_were_asked_for(tmp_path: Path) -> None:
    restoring.write_photographs(tmp_path, 4, [0.5])
    sizes = {}
    for path in tmp_path.rglob("*.jpg"):
        with Image.open(path) as image:
            sizes[path.name] = image.size
    assert sizes.pop("0.5 megapixels.jpg") == (849, 589)
    assert sizes == {f"{number:03}.jpg": (200, 150) for number in range(4)}


def test_a_process_is_timed_and_a_failure_is_an_error(tmp_path: Path) -> None:
    busy = "import time; end = time.process_time() + 0.2\nwhile time.process_time() < end: pass"
    wall, processor, memory = restoring.timed(Case("busy", (), ("-c", busy)), tmp_path, HERE)
    assert 0.2 <= processor <= wall + 0.1
    assert memory > 1
    with pytest.raises(RuntimeError, match=f"broken: exit code 3 in {HERE}"):
        restoring.timed(Case("broken", (), ("-c", "raise SystemExit(3)")), tmp_path, HERE)
    assert restoring.timed(Case("error: expected", (), ("-c", "raise SystemExit(2)")), tmp_path, HERE)[0] > 0


def test_all_commands_are_timed_in_both_checkouts_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    (other / "agents").mkdir(parents=True)
    (other / "agents" / "cli.py").touch()
    runs: list[tuple[str, Path]] = []

    def pretend(case: Case, folder: Path, checkout: Path) -> tuple[float, float, float]:
        assert (folder / "small" / "000.jpg").exists()
        runs.append((case.name, checkout))
        slow = 4.0 if checkout == other else 1.0
        return slow * (1 + runs.count(runs[-1])), slow, 100 * slow

    monkeypatch.setattr(restoring, "timed", pretend)
    options = ["--small", "1", "--megapixels", "0.1", "--rounds", "2", "--json", str(tmp_path / "times.json")]
    assert speed.main(["--restore", "--against", str(other), *options]) == 0
    assert runs[:4] == [("--help", other), ("--help", HERE)] * 2
    assert [name for name, _ in runs[-4:]] == ["1 of 200x150", "1 of 200x150", "0.1 megapixels", "0.1 megapixels"]
    out = capsys.readouterr().out
    assert "| command | s before | s after | processor s before | processor s after | MiB before | MiB after |" in out
    assert "| --help | 8.00 | 2.00 | 4.00 | 1.00 | - | - |" in out
    assert "| 0.1 megapixels | 8.00 | 2.00 | 4.00 | 1.00 | 400 | 100 |" in out
    rows = json.loads((tmp_path / "times.json").read_text())["rows"]
    assert Timing(**rows[1]) == Timing("--help", THIS, 2.0, 1.0, None)


def test_another_folder_is_no_checkout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert speed.main(["--restore", "--against", str(tmp_path)]) == 2
    assert "no checkout of this project" in capsys.readouterr().err


def test_the_first_tile_ends_the_program(tmp_path: Path) -> None:
    """As far as the command is run without the agent: its progress bar is replaced."""
    asked = "command.progress_bar('x').__enter__()('a', 1.0)"
    program = restoring.FIRST_TILE[1].replace("agents.cli.main(sys.argv[1:])", asked)
    case = Case("first", (), ("-c", program + "\nraise SystemExit(1)"))
    assert restoring.timed(case, tmp_path, HERE)[0] > 0
