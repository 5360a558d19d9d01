"""Every benchmark in short, the papers' tables, and photographs without a target."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from agents.policies.heuristics import FixedChain
from benchmarks import beside_paper, complexity, no_reference, real_photos, short, summary
from benchmarks.baselines import BASELINES
from benchmarks.contest import Contender
from benchmarks.methods import Method
from benchmarks.paper import PSNR
from benchmarks.photographs import restore_pixels
from benchmarks.records import read_comparison
from benchmarks.short_table import ROWS, Row
from restore_env.toolbox import Toolbox
from tests.support.toolkit import photographs, pixelwise_toolbox, pixelwise_tools
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
        assert "PyTorch\nthreads" in page
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
            (["--images", "none"], "none: no image files"),
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
        root = Path(short.__file__).parent
        places = short.Photographs(tmp_path, tmp_path, tmp_path, "")
        for row in ROWS:
            benchmark = importlib.import_module(f"benchmarks.{row.module}")
            monkeypatch.setattr(benchmark, "run", lambda arguments: 0 if arguments.json.stem in names else 3)
            assert benchmark.main(short.words_of(row, places, tmp_path)) == 0
            assert not row.long or (root.parent / row.long).is_file()


class TestWithoutATarget:
    def test_noise_is_estimated_where_there_is_detail(self) -> None:
        clean = photographs(1, 200, 240)[0]
        noisy = clean + np.random.default_rng(0).normal(0, 10, clean.shape[:2])[..., None]
        pixels = np.clip(noisy, 0, 255).astype(np.uint8)
        assert no_reference.noise_sigma(clean) < 1
        assert no_reference.noise_sigma(pixels) == pytest.approx(10 * 219 / 255, rel=0.15)

    def test_blocks_are_those_of_jpeg(self, tmp_path: Path) -> None:
        clean = photographs(1, 200, 240)[0]
        Image.fromarray(clean).save(tmp_path / "a.jpg", quality=5)
        compressed = np.asarray(Image.open(tmp_path / "a.jpg"))
        assert no_reference.blockiness(clean) == pytest.approx(1, abs=0.1)
        assert no_reference.blockiness(compressed) > 1.5
        assert no_reference.blockiness(compressed[3:, 3:]) < 1.2  # blocks that do not begin at the corner

    def test_blur_rises_with_blurring(self) -> None:
        sharp = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        soft = cv2.GaussianBlur(sharp, (0, 0), 1.5).astype(np.uint8)
        assert no_reference.blur(soft) > no_reference.blur(sharp) + 0.1
        with pytest.raises(ValueError, match="20x64 pixels are too few"):
            no_reference.blur(sharp[:, :20])

    def test_chains_act_and_oracles_are_refused(self) -> None:
        toolbox, pixels = pixelwise_toolbox(), photographs(1, 40, 50)[0]
        twice = Method("x", "x", Contender("x", FixedChain((2, 2), toolbox.stop), toolbox), 0)
        restored, chain = restore_pixels(twice, pixels)
        assert np.array_equal(restored, pixels)
        assert chain == ("invert", "invert")
        blind = Method("greedy", "x", Contender("x", object(), toolbox), 0)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="greedy looks at the target"):
            restore_pixels(blind, pixels)

    def test_the_crop_is_where_most_changes(self) -> None:
        before = np.zeros((50, 60, 3), np.uint8)
        after = before.copy()
        after[30:38, 20:28] = 90
        rows, columns = real_photos.changed_most(before, [before, after], 8)
        assert (rows, columns) == (slice(30, 38), slice(20, 28))
        assert real_photos.changed_most(before, [after], 100) == (slice(0, 50), slice(0, 60))

    def test_the_command(self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        arguments = ["--images", str(folder), "--synthetic", "--methods", "classic", "published"]
        arguments += ["--json", str(tmp_path / "a.json"), "--figure", str(tmp_path / "a.png"), "--crop", "32"]
        assert real_photos.main(arguments) == 0
        printed = capsys.readouterr().out
        assert "| toolchain, classic |" in printed
        assert "| published | failed: give the folder" in printed
        record = json.loads((tmp_path / "a.json").read_text())
        assert {one["method"] for one in record["outcomes"]} == {"input", "classic"}
        assert (tmp_path / "a.png").stat().st_size > 1000

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "give photographs by --images, or --synthetic"),
            (["--synthetic", "--methods", "greedy"], "unknown method 'greedy'"),
            (["--synthetic", "--figure", "a.bmp"], "a figure ends in"),
        ],
    )
    def test_mistakes(self, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert real_photos.main(arguments) == 2
        printed = capsys.readouterr().err
        assert message in printed
        assert printed.count("\n") == 1


def comparison(tmp_path: Path) -> Path:
    def line(name: str, title: str, psnr: float) -> dict[str, Any]:
        estimates = {"psnr": {"mean": psnr}, "ssim": {"mean": 0.5}}
        return {"name": name, "title": title, "estimates": estimates, "gmacs": psnr / 10, "milliseconds": psnr}

    def severity(bonus: float) -> list[dict[str, Any]]:
        return [line("vdsr", "VDSR", 25.0 + bonus), line("default", "toolchain, default", 25.5 + bonus)]

    methods = [
        {"name": "vdsr", "title": "VDSR", "undertrained": True, "cost": {"seconds_per_megapixel": 15.0}},
        {"name": "default", "title": "toolchain, default", "undertrained": False, "cost": None},
    ]
    severities = {"severe": severity(0), "mild": severity(1), "motion": severity(2)}
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"command": "python -m it", "severities": severities, "methods": methods}))
    return path


def test_a_comparison_stands_next_to_the_papers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert beside_paper.main(["--comparison", str(comparison(tmp_path))]) == 0
    printed = capsys.readouterr().out
    assert f"| VDSR | 26.00 | 0.5000 | {PSNR['vdsr']['mild']:.2f} | 25.00 | 0.5000 | 24.90 |" in printed
    assert "| toolchain, default | 26.50 | 0.5000 |  | 25.50 | 0.5000 |  |" in printed
    assert re.search(r"\| OWAN \|.*\|  \|  \| 25\.88 \|", printed)
    assert "| toolchain, default | +0.50 |  | +0.50 |  | +0.50 |  |" in printed
    assert "| RL-Restore |  | +0.00 |  | +0.30 |  | +0.15 |" in printed  # 28.04 and 25.20 against 28.04 and 24.90
    assert "minus RL-Restore" not in printed  # not measured
    assert "motion" not in printed
    assert "DIV2K" in printed
    assert "python -m it" in printed


def test_distances_are_taken_from_every_yardstick_measured(tmp_path: Path) -> None:
    measured = read_comparison(comparison(tmp_path)).measured
    theirs = {severity: {**named, "published": named["default"]} for severity, named in measured.items()}
    table = beside_paper.distance_table(theirs, "published")
    assert table.startswith("| minus RL-Restore, dB | mild | paper | severe | paper | mean | paper |")
    assert "| VDSR | -0.50 | +0.00 | -0.50 | -0.30 | -0.50 | -0.15 |" in table
    assert beside_paper.distance_table({**measured, "mild": theirs["mild"]}, "published") == ""


def test_a_comparison_in_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = tmp_path / "card.md"
    card.write_text("Results\n<!-- summary:begin -->\n<!-- summary:end -->\nMore\n")
    words = ["--comparison", str(comparison(tmp_path))]
    assert summary.main([*words, "--methods", "default", "vdsr", "--card", str(card)]) == 0
    text = card.read_text()
    rows = [
        "| | mild, dB | severe, dB | GMAC a patch | ms a patch | s a megapixel |",
        "|---|---:|---:|---:|---:|---:|",
        "| toolchain, default | 26.50 | 25.50 | 2.60 | 26.0 |  |",
        "| VDSR * | 26.00 | 25.00 | 2.55 | 25.5 | 15.00 |",
    ]
    assert "\n".join(rows) in text
    assert "a win over it is not claimed" in text
    assert "python -m it" in text
    capsys.readouterr()
    assert summary.main([*words, "--methods", "default", "--json", str(tmp_path / "s.json")]) == 0
    assert "not claimed" not in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "s.json").read_text())["rows"]
    assert row["psnr"] == {"mild": 26.5, "severe": 25.5}
    assert summary.main([*words, "--methods", "default", "magic"]) == 2
    assert "'magic' was not compared: choose from vdsr, default" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["{", "[]", '{"severities": {"mild": []}, "methods": [], "command": "x"}'])
def test_other_files_are_no_comparison(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.json").write_text(text)
    for reader in (beside_paper, summary):
        assert reader.main(["--comparison", str(tmp_path / "c.json")]) == 2
    assert "c.json: not what python -m benchmarks.compare --json writes" in capsys.readouterr().err
    assert beside_paper.main(["--comparison", str(tmp_path / "none")]) == 2


@pytest.mark.parametrize(
    "spoil",
    [
        lambda record: record["severities"]["mild"].pop(),  # a method is missing on one severity
        lambda record: record["methods"].pop(),  # a line of no method
        lambda record: record["methods"][0].pop("title"),
        lambda record: record["methods"][0].update(cost={"peak_mib": 1.0}),
        lambda record: record["severities"]["mild"][0].update(gmacs="3"),
        lambda record: record["severities"]["mild"][0]["estimates"].pop("ssim"),
    ],
)
def test_a_comparison_that_lacks_something_is_refused(
    spoil: Callable[[dict[str, Any]], object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = comparison(tmp_path)
    record = json.loads(path.read_text())
    spoil(record)
    path.write_text(json.dumps(record))
    for reader in (beside_paper, summary):
        assert reader.main(["--comparison", str(path)]) == 2
        assert "c.json: not what python -m benchmarks.compare --json writes" in capsys.readouterr().err


def test_what_a_patch_costs(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--images", str(folder), "--methods", "vdsr_s", "default", "--patches", "2", "--rounds", "1"]
    assert complexity.main([*arguments, "--json", str(tmp_path / "a.json")]) == 0
    network, chain = json.loads((tmp_path / "a.json").read_text())["rows"]
    assert network["parameters"] == network["running"] == BASELINES["vdsr_s"].parameters
    assert network["gmacs"] == pytest.approx(network["published_gmacs"], rel=0.01)
    assert 0 < chain["running"] < chain["parameters"]
    assert chain["published_gmacs"] is None
    assert "| VDSR-s | 209 k | 209 k | 0.83 |" in capsys.readouterr().out
    assert complexity.main(["--methods", "magic"]) == 2


def test_a_tool_that_is_taken_twice_counts_twice() -> None:
    first = torch.nn.Conv2d(3, 3, 1)
    first.name, first.scale, first.macs_per_pixel, first.receptive_radius = "first", 1, 9, 0  # type: ignore[assignment]
    toolbox = Toolbox([first, *pixelwise_tools()])  # type: ignore[list-item]
    method = Method("x", "x", Contender("x", FixedChain((0, 0), toolbox.stop), toolbox), 12)
    played = type("Played", (), {"actions": ((0, 0, 4), (0, 4), (1, 4), (4,))})()
    assert complexity.running_parameters(method, played) == (24 + 12) / 4
