from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agents.agent import RecurrentAgent, save_policy
from agents.imitation.demonstrations import Demonstrations
from benchmarks import calibration, photographs
from restore_env.levels.store import open_levels
from tests.support.level_sets import COUNT, small_levels
from tests.support.toolkit import photographs as pictures
from tests.support.toolkit import pixelwise_toolbox


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A level set of depth 2 and an agent of values for its tools."""
    folder = tmp_path_factory.mktemp("predictions")
    tools = tuple(open_levels(small_levels(folder, depth=2, last_observed=False)).manifest.tools)
    save_policy(RecurrentAgent(tools, "q", encoder="compact"), folder / "agent.safetensors")
    save_policy(RecurrentAgent(tools, encoder="compact"), folder / "chooses.safetensors")
    return folder


def test_real_values_are_those_of_the_choice(folder: Path) -> None:
    levels = open_levels(folder / "levels")
    part = Demonstrations(levels, np.arange(COUNT))
    agent = RecurrentAgent(tuple(levels.manifest.tools), "q", encoder="compact").eval().requires_grad_(False)
    for weight in agent.parameters():
        weight.zero_()
    agent.head.bias[1] = 1.5
    predicted, real = calibration.predictions(agent, part)
    assert predicted.shape == real.shape == (2, COUNT)
    assert np.allclose(predicted, 1.5)
    assert np.allclose(real[0], part.gains[:, 0, 1] + part.gains[:, 2, 1], atol=1e-5)
    assert np.allclose(real[1], part.gains[:, 2, 1], atol=1e-5)


def test_lines_have_the_states_of_their_range() -> None:
    lines = calibration.lines_of(np.array([0.05, 0.2, 0.25, 5.0]), np.array([1.05, 0.2, 0.15, 7.0]))
    assert [line.states for line in lines] == [1, 2, 1]
    assert lines[1].predicted == pytest.approx(0.225)
    assert [line.error for line in lines] == pytest.approx([1.0, 0.05, 2.0])
    assert [row.split(" | ")[0] for row in calibration.table(lines)[2:]] == [
        "| below 0.1",
        "| 0.1 to 0.3",
        "| 4 and more",
    ]


def test_the_calibration_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(folder / "levels"), "--policy"]
    figure, record = folder / "figure.png", folder / "calibration.json"
    outputs = ["--figure", str(figure), "--json", str(record)]
    assert calibration.main([*words, str(folder / "agent.safetensors"), *outputs]) == 0
    assert "mean absolute error" in capsys.readouterr().out
    assert figure.exists()
    assert sum(line["states"] for line in json.loads(record.read_text())["lines"]) == 2 * COUNT
    assert calibration.main([*words, str(folder / "chooses.safetensors")]) == 2
    assert "predicts no gains" in capsys.readouterr().err
    assert calibration.main([*words, "default"]) == 2
    assert "was trained with the tools" in capsys.readouterr().err


def test_whole_photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A policy that always stops changes nothing."""
    monkeypatch.setattr(photographs, "embedded_paths", list)
    monkeypatch.setattr("agents.restoration.restorer.resolve_toolbox", lambda *_: pixelwise_toolbox())
    agent = RecurrentAgent(("brighten", "dim", "invert"), "q")
    agent.head.bias.data[-1] = 100.0
    save_policy(agent, tmp_path / "agent.safetensors")
    Image.fromarray(pictures(1, 90, 100)[0]).save(tmp_path / "photo.png")
    record = tmp_path / "photographs.json"
    words = ["--images", str(tmp_path / "photo.png"), "--policy", str(tmp_path / "agent.safetensors")]
    assert photographs.main([*words, "--json", str(record)]) == 0
    lines = json.loads(record.read_text())["lines"]
    assert [line["case"] for line in lines] == list(photographs.CASES)
    assert all(line["worst"] == line["shift"] == 0 and line["before"] == line["after"] for line in lines)
    by_name = {line["case"]: line for line in lines}
    assert by_name["white noise, sigma 30"]["before"] == pytest.approx(20 * np.log10(255 / 30), abs=1)
    assert by_name["saved, quality 95"]["non_local_means"] is None
    assert "| white noise, sigma 30 | 1 |" in capsys.readouterr().out
