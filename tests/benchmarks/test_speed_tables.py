"""The tables of speed: complete, and consistent in themselves."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks import learning_speed, photo_speed, scaling
from benchmarks.stopwatch import Stopwatch, best_of
from restore_env.toolbox import Tool

pytestmark = pytest.mark.usefixtures("one_thread")

Command = Callable[[Sequence[str]], int]
COMMANDS: dict[str, tuple[Command, list[str]]] = {
    learning_speed.SECTION: (learning_speed.main, ["--envs", "2", "--steps", "3", "--rounds", "1"]),
    scaling.SECTION: (
        scaling.main,
        ["--envs", "2", "1", "--least-steps", "8", "--megapixels", "0.02", "0.01", "--rounds", "1"],
    ),
    photo_speed.SECTION: (
        photo_speed.main,
        ["--megapixels", "0.006", "--toolboxes", "pure", "--networks", "vdsr_s", "owan", "--rounds", "1"],
    ),
}


def measured(section: str, folder: Path, *more: str) -> tuple[dict[str, Any], str]:
    """Run a command and return its JSON and the card's section."""
    command, arguments = COMMANDS[section]
    card = folder / "speed.md"
    card.write_text(f"<!-- {section}:begin -->\n<!-- {section}:end -->\n")
    assert command([*arguments, "--json", str(folder / "a.json"), "--card", str(card), *more]) == 0
    record = json.loads((folder / "a.json").read_text())
    assert record["environment"]["threads"] == 1
    return record, card.read_text()


def test_the_parts_of_an_iteration_add_up(tmp_path: Path) -> None:
    record, card = measured(learning_speed.SECTION, tmp_path)
    able = [contender for contender in learning_speed.CONTENDERS if contender.can_run("cpu")]
    assert [row["title"] for row in record["rows"]] == [contender.title for contender in able]
    assert {contender.backend for contender in learning_speed.CONTENDERS if contender.can_run("cuda")} == {"torch"}
    for row in record["rows"]:
        assert set(row["parts"]) == set(learning_speed.PARTS)
        assert sum(row["parts"].values()) == pytest.approx(row["milliseconds"])
        assert all(value > 0 for value in row["parts"].values())
        assert f"| {row['title']} | {row['milliseconds']:.2f} |" in card
    assert "2 environments, 3 steps each" in card


def test_growth_is_measured_from_the_smallest(tmp_path: Path) -> None:
    record, card = measured(scaling.SECTION, tmp_path, "--figure", str(tmp_path / "a.png"))
    assert [point["size"] for point in record["environments"]] == [1, 2]
    assert [point["size"] for point in record["photos"]] == [0.01, 0.02]
    for point in record["environments"]:
        assert point["steps_per_second"] == pytest.approx(point["size"] / point["seconds"])
    assert all(point["seconds"] > 0 for point in record["photos"])
    assert len(re.findall(r"^\| (?:1|0\.01) \|.*\| 100% \|", card, re.MULTILINE)) == 2
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_every_method_restores_the_photo(tmp_path: Path) -> None:
    record, card = measured(photo_speed.SECTION, tmp_path)
    rows = [(row["method"], row["tiled"]) for row in record["rows"]]
    networks = [(name, tiled) for name in ("VDSR-s", "OWAN") for tiled in (True, False)]
    assert rows == [("toolchain, pure", True), *networks]
    assert all(row["seconds_per_megapixel"] > 0 for row in record["rows"])
    computed = {row["method"]: row["gmacs_per_megapixel"] for row in record["rows"]}
    assert computed["VDSR-s"] == pytest.approx(209, rel=0.01)
    assert (record["width"], record["height"]) == (95, 63)
    assert "untrained" in card


def test_rivals_are_run_by_what_runs_the_tools(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ncnn", reason="needs the extra ncnn")
    cut: list[str] = []
    monkeypatch.setattr(photo_speed, "LARGE_TILE", 40)
    inside = photo_speed._tile_by_tile

    def watched(tool: Tool, device: str, tile: int | None) -> Callable[[photo_speed.Pixels], float]:
        cut.append(f"{tool.name} {tool.receptive_radius} {tile}")
        return inside(tool, device, tile)

    monkeypatch.setattr(photo_speed, "_tile_by_tile", watched)
    record, _ = measured(photo_speed.SECTION, tmp_path, "--backends", "torch", "eager", "ncnn")
    assert cut.count(f"owan {photo_speed.OVERLAP} 40") == 2  # whoever runs it
    titles = [row["method"] for row in record["rows"]]
    assert titles[10:] == ["toolchain, pure, by ncnn", "VDSR-s, by ncnn", "VDSR-s, by ncnn"]
    computed = [row["gmacs_per_megapixel"] for row in record["rows"]]
    assert computed[0] == pytest.approx(computed[5]) == pytest.approx(computed[10])
    assert "Owan cannot be converted to ncnn" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("section", "more", "message"),
    [
        ("learning", ["--toolbox", "none"], "none: no toolbox; expected one of"),
        ("learning", ["--device", "tpu"], "device 'tpu' cannot be used"),
        ("learning", ["--clock", "sundial"], "invalid choice: 'sundial'"),
        ("learning", ["--envs", "0"], "--envs"),
        ("scaling", ["--figure", "a.bmp"], "a figure ends in"),
        ("scaling", ["--megapixels", "-1"], "--megapixels"),
        ("photo", ["--networks", "magic"], "unknown baseline 'magic'"),
        ("photo", ["--networks", "srcnn"], "srcnn enlarges"),
        ("photo", ["--networks", "--toolboxes"], "nothing to measure"),
        ("photo", ["--backends", "tpu"], "unknown backend 'tpu'"),
        ("photo", ["--backends", "torch", "onnx", "--device", "cuda"], "backend 'onnx'"),
        ("photo", ["--image", "none.jpg"], "none.jpg"),
        ("photo", ["--card", "none.md"], "none.md"),
    ],
)
def test_mistakes_are_told_in_one_line(
    section: str, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = COMMANDS[section][0](more)
    except SystemExit as left:
        code = left.code
    printed = capsys.readouterr()
    assert (code, printed.out) == (2, "")
    assert message in printed.err
    assert printed.err.count("\n") == 1


def test_a_stopwatch_adds_up() -> None:
    watch = Stopwatch()
    nap = watch.timed("nap", time.sleep)
    with pytest.raises(ValueError, match="non-negative"):
        nap(-1)
    for _ in range(2):
        nap(0.01)
    assert watch.seconds["nap"] >= 0.02
    watch.reset()
    assert watch.seconds == {"nap": 0.0}
    with pytest.raises(ValueError, match="choose from wall, cpu"):
        Stopwatch("sundial")


def test_work_takes_turns_until_it_took_long_enough() -> None:
    begun: list[str] = []

    def slow() -> None:
        begun.append("slow")
        time.sleep(0.03)

    work: dict[str, Callable[[], object]] = {"quick": partial(begun.append, "quick"), "slow": slow}
    best = best_of(work, rounds=3, seconds=0.02, clock="wall")
    assert begun == ["quick", "slow", "quick", "quick"]
    assert best["quick"] < 0.03 <= best["slow"]
