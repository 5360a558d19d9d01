"""What a policy does when: counting, drawing, the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import benchmarks.analysis
from agents.restoration.explanation import action_colours
from benchmarks.analysis import count_choices, draw_choices, level_of
from restore_env.distortions.protocol import BLUR_EDGES, JPEG_EDGES, draw_levels
from restore_env.images.decoding import read_image
from restore_env.sampling import EpisodeStart
from tests.support.toolkit import photographs

pytestmark = pytest.mark.usefixtures("one_thread")


def start(**levels: float) -> EpisodeStart:
    pixels = photographs(1, 40, 40)[0]
    return EpisodeStart(pixels, pixels, 1, "a", 0, levels)


def test_levels_rise_with_the_damage() -> None:
    assert [level_of(value, BLUR_EDGES) for value in (0, 0.49, 0.51, 4.99, 5)] == [0, 0, 1, 9, 9]
    assert [level_of(value, JPEG_EDGES) for value in (100, 81, 79, 33, 11, 10)] == [0, 0, 1, 5, 9, 9]


def test_levels_are_those_that_make_the_severity() -> None:
    for seed in range(50):
        levels = draw_levels("severe", np.random.default_rng(seed)).as_dict()
        total = sum(level_of(levels[name], edges) + 1 for name, (_, edges) in benchmarks.analysis.DISTORTIONS.items())
        assert 17 <= total - 2 <= 20  # a quality on the edge between two levels may belong to either


def test_choices_are_counted_by_step_and_level() -> None:
    starts = [
        start(blur_sigma=0.2, noise_sigma=47.0, jpeg_quality=90),
        start(blur_sigma=0.3, noise_sigma=2.0, jpeg_quality=12),
    ]
    counts = count_choices([(1, 2), (1, 0, 2)], starts, n_actions=3, steps=3)
    assert counts.shape == (3, 3, 10, 3)
    assert counts.sum(axis=(2, 3)).tolist() == [[2, 2, 2], [2, 2, 2], [1, 1, 1]]
    assert counts[0, 0, 0].tolist() == [0, 2, 0]
    assert counts[1, 1, 9].tolist() == [0, 0, 1]
    assert counts[1, 1, 0].tolist() == [1, 0, 0]
    assert counts[2, 2, 9].tolist() == [0, 0, 1]


def test_a_certain_choice_has_its_actions_full_colour(tmp_path: Path) -> None:
    names = ("deblur_1", "denoise_1", "stop")
    counts = np.zeros((1, 3, 10, 3), dtype=np.int64)
    counts[..., 1] = 7
    draw_choices(tmp_path / "figure.png", counts, names, "certain")
    pixels = read_image(tmp_path / "figure.png").pixels
    colours = [np.round(np.asarray(colour)[:3] * 255).astype(int) for colour in action_colours(names)[:2]]
    shares = [(np.abs(pixels.astype(int) - colour).max(axis=2) <= 2).mean() for colour in colours]
    assert shares[0] == 0
    assert shares[1] > 0.1


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    Image.fromarray(photographs(1, 80, 100)[0]).save(folder / "a.png")
    return folder


@pytest.mark.parametrize("oracle", [[], ["--oracle", "greedy"]])
def test_the_command(oracle: list[str], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figure, numbers = tmp_path / "new" / "choices.png", tmp_path / "choices.json"
    command = ["--images", str(photos), "--patches", "5", "--severity", "severe", "--out", str(figure)]
    assert benchmarks.analysis.main([*command, "--json", str(numbers), *oracle]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("step 1, 5 patches: ")
    assert read_image(figure).pixels.shape[1] > 1000
    record: dict[str, Any] = json.loads(numbers.read_text())
    assert record["policy"] == ("greedy oracle" if oracle else "default")
    assert len(record["actions"]) == 13
    assert len(record["counts"]) == 3
    for kind, edges in record["edges"].items():
        first = np.array(record["counts"][0][kind])
        assert first.shape == (len(edges) - 1, 13)
        assert first.sum() == 5
        assert first[:4].sum() == 0 or kind == "jpeg_quality"  # severe: every level is high


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--out", "figure.gif"], "a figure ends in"),
        (["--policy", "no/such/policy"], "no policy"),
        (["--oracle", "wise"], "invalid choice"),
    ],
)
def test_mistakes_are_told_in_one_line(
    more: list[str], message: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = benchmarks.analysis.main(["--images", str(photos), *more])
    except SystemExit as stop:
        code = int(stop.code or 0)
    printed = capsys.readouterr()
    assert (code, printed.out, printed.err.count("\n")) == (2, "", 1)
    assert message in printed.err
