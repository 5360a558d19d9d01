from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from agents.agent import RecurrentAgent, load_policy, save_policy
from agents.cli import main
from agents.encoders import EncoderName
from agents.imitation.warm_start import warm_start
from agents.policy_input import PolicyInput
from tests.support.three_tools import NAMES, settings, toolbox, weights
from tools_zoo import load_toolbox
from tools_zoo.networks import ThreeLayer
from tools_zoo.toolboxes import ToolWeights, read_tool, update_toolbox
from tools_zoo.training.joint import initial_weights


def command(folder: Path, encoder: EncoderName = "published") -> list[str]:
    """Start of a command line; writes the toolbox and the policy that it names."""
    start, policy = toolbox(folder / "start"), folder / "agent.safetensors"
    save_policy(RecurrentAgent(NAMES, "q", {"decide": "values"}, encoder), policy)
    return ["train", "joint", "--toolbox", str(start), "--policy", str(policy), "--out", str(folder / "out")]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[str] = []
    saturated: list[float] = []

    def record(*arguments: Any, **options: Any) -> None:
        trained.append(arguments[1].severity)
        saturated.append(arguments[1].saturation_prob)
        warm_start(*arguments, **options)

    monkeypatch.setattr("agents.training.refresh.warm_start", record)
    monkeypatch.setattr("agents.imitation.warm_start.LEVELS", 2)
    words = command(tmp_path, "compact")
    words += ["--steps", "2", "--rounds", "2", "--refresh", "0.02", "--batch-size", "2"]
    words += ["--severity", "moderate+single", "--saturation-prob", "0.25"]
    assert main(words) == 0
    assert "round 2: 1 steps" in capsys.readouterr().out
    assert load_toolbox(tmp_path / "out").names == NAMES
    refreshed = load_policy(tmp_path / "out" / "agent.safetensors")
    assert (refreshed.extractor.encoder, refreshed.recipe["severity"]) == ("compact", "moderate+single")
    assert trained == ["moderate+single"] * 2
    assert PolicyInput.of(refreshed).decide == "values"
    assert (saturated, refreshed.recipe["saturation_prob"]) == ([0.25, 0.25], 0.25)
    assert main(words) == 0
    assert trained == ["moderate+single"] * 2  # the rounds' agents are loaded, with their recipes
    assert load_policy(tmp_path / "out" / "agent.safetensors").recipe == refreshed.recipe
    capsys.readouterr()
    assert main([*words, "--refresh", "0.03"]) == 2
    assert "round-1.agent.safetensors: was made with refresh 0.02, not 0.03" in capsys.readouterr().err
    assert main([*words, "--saturation-prob", "0"]) == 2
    assert "was made with saturation_prob 0.25, not 0.0" in capsys.readouterr().err
    words[words.index("--toolbox") + 1] = "default"
    assert main(words) == 2
    assert "belong together" in capsys.readouterr().err


def test_a_first_round_may_have_one_chain_and_patches_of_another_size(tmp_path: Path) -> None:
    words = command(tmp_path)
    words += ["--steps", "2", "--batch-size", "2", "--exploration", "0", "--patch-size", "24"]
    assert main([*words, "--chain", "dejpeg_1", "denoise_2"]) == 0
    for name, changed in (("deblur_1", False), ("denoise_2", True), ("dejpeg_1", True)):
        before, after = weights(tmp_path / "start", name), weights(tmp_path / "out", name)
        assert changed != all(torch.equal(before[key], after[key]) for key in before), name


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--initial-weights dejpeg_1=nonsense", "unknown tool 'nonsense' in initial_weights"),
        ("--initial-weights dejpeg_1=denoise_2 dejpeg_1=deblur_1", "initial_weights: dejpeg_1 is named twice"),
        ("--initial-weights dejpeg_1", "'dejpeg_1' is not of the form TOOL=OTHER"),
        ("--frozen-tools nonsense", "unknown tool 'nonsense' in frozen_tools"),
        ("--frozen-tools dejpeg_1 --chain dejpeg_1", "frozen_tools dejpeg_1: nothing is left to learn"),
        ("--patch-size 24", "takes patches of 63 pixels"),
        (
            "--frozen-tools dejpeg_1 --initial-weights dejpeg_1=identity",
            "it starts as the identity and would stay that",
        ),
        ("--chain dejpeg_1 --initial-weights deblur_1=identity", "chain has no such step"),
        ("--chain dejpeg_1 deblur_1 --chain-length 1", "chain names 2 tools: leave out chain_length 1"),
        ("--chain dejpeg_1 nonsense", "unknown tool 'nonsense' in chain: choose from deblur_1"),
    ],
)
def test_wrong_options_are_explained(
    options: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command(tmp_path), "--steps", "1", "--batch-size", "1", *options.split()]) == 2
    assert said in capsys.readouterr().err


def test_a_finished_run_goes_on_with_more_rounds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*command(tmp_path), "--batch-size", "1"]
    assert main([*words, "--steps", "1", "--rounds", "1"]) == 0
    assert main([*words, "--steps", "2", "--rounds", "2"]) == 0
    assert "round 2: 1 steps" in capsys.readouterr().out


def test_initial_weights_and_frozen_tools(tmp_path: Path) -> None:
    words = command(tmp_path)
    torch.manual_seed(1)
    start, out = tmp_path / "start", tmp_path / "out"
    update_toolbox(start, [ToolWeights("denoise_2", "three_layer", ThreeLayer().state_dict())])
    words += ["--steps", "1", "--batch-size", "1", "--exploration", "0", "--chain", "denoise_2", "dejpeg_1"]
    assert main([*words, "--initial-weights", "deblur_1=denoise_2", "--frozen-tools", "denoise_2"]) == 0
    recipe = read_tool(out / "dejpeg_1.safetensors", "three_layer").recipe
    assert (recipe["initial_weights"], recipe["frozen_tools"]) == (["deblur_1=denoise_2"], ["denoise_2"])
    original = weights(start, "denoise_2")
    for name in ("deblur_1", "denoise_2"):  # a copy that no chain used, and a frozen tool
        assert all(torch.equal(value, original[key]) for key, value in weights(out, name).items())


def test_a_tool_that_starts_as_the_identity(tmp_path: Path) -> None:
    toolbox(tmp_path / "start")
    update_toolbox(tmp_path / "start", [ToolWeights("denoise_2", "three_layer", ThreeLayer().state_dict())])
    start = initial_weights(settings(tmp_path, initial_weights=("denoise_2=identity",)))["denoise_2"]
    network = ThreeLayer()
    network.load_state_dict(dict(start.state))
    images = torch.rand(1, 3, 16, 16)
    assert torch.equal(network(images), images)
    assert start.recipe["last_layer"] == "zeros"
