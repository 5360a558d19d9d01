from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from agents.agent import RecurrentAgent, load_policy, save_policy
from agents.cli import main
from agents.imitation.imitation import learn_from_oracle
from tests.support.three_tools import NAMES, toolbox, weights
from tools_zoo import load_toolbox
from tools_zoo.networks import ThreeLayer
from tools_zoo.toolboxes import ToolWeights, read_tool, update_toolbox


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    taught: list[tuple[str, float]] = []
    clipped: list[float] = []

    def teach(*arguments: Any, **options: Any) -> None:
        taught.extend((task.severity, share) for task, share in options["beside"])
        clipped.append(arguments[1].saturation_prob)
        learn_from_oracle(*arguments, **options)

    monkeypatch.setattr("agents.imitation.imitation.learn_from_oracle", teach)
    start, policy = toolbox(tmp_path / "start"), tmp_path / "agent.safetensors"
    save_policy(RecurrentAgent(NAMES, encoder="spectral"), policy)
    words = ["train", "joint", "--toolbox", str(start), "--policy", str(policy), "--out", str(tmp_path / "out")]
    words += ["--steps", "2", "--rounds", "2", "--refresh", "0.02", "--batch-size", "2"]
    words += ["--single-share", "0.5", "--saturation-prob", "0.25"]
    assert main(words) == 0
    assert "round 2: 1 steps" in capsys.readouterr().out
    assert load_toolbox(tmp_path / "out").names == NAMES
    refreshed = load_policy(tmp_path / "out" / "agent.safetensors")
    assert (refreshed.extractor.encoder, refreshed.recipe["single_share"]) == ("spectral", 0.5)
    assert taught == [("single", 0.5)] * 2
    assert (clipped, refreshed.recipe["saturation_prob"]) == ([0.25, 0.25], 0.25)
    assert main(words) == 0
    assert taught == [("single", 0.5)] * 2  # the rounds' agents are taken up, with how they were taught
    assert load_policy(tmp_path / "out" / "agent.safetensors").recipe == refreshed.recipe
    capsys.readouterr()
    assert main([*words, "--refresh", "0.03"]) == 2
    assert "round-1.agent.safetensors: was taught with minutes_a_round 0.02, not 0.03" in capsys.readouterr().err
    assert main([*words, "--saturation-prob", "0"]) == 2
    assert "was made with saturation_prob 0.25, not as by default" in capsys.readouterr().err
    words[words.index(str(start))] = "default"
    assert main(words) == 2
    assert "belong together" in capsys.readouterr().err


def test_an_agent_that_was_taught_before_there_were_clipped_patches_is_taken_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start, policy = toolbox(tmp_path / "start"), tmp_path / "agent.safetensors"
    save_policy(RecurrentAgent(NAMES, encoder="spectral"), policy)
    words = ["train", "joint", "--toolbox", str(start), "--policy", str(policy), "--out", str(tmp_path / "out")]
    words += ["--steps", "1", "--refresh", "0.02", "--batch-size", "2"]
    assert main(words) == 0
    path = tmp_path / "out" / "round-1.agent.safetensors"
    taught = load_policy(path)
    for share, code in ((None, 0), (0.5, 2)):
        taught.recipe = {key: value for key, value in taught.recipe.items() if key != "saturation_prob"}
        taught.recipe |= {} if share is None else {"saturation_prob": share}
        save_policy(taught, path)
        assert main(words) == code
    assert "was taught with saturation_prob 0.5, not 0.0" in capsys.readouterr().err


def test_a_first_round_may_have_one_chain_and_patches_of_its_own_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start, policy = toolbox(tmp_path / "start"), tmp_path / "agent.safetensors"
    save_policy(RecurrentAgent(NAMES), policy)
    words = ["train", "joint", "--toolbox", str(start), "--policy", str(policy), "--out", str(tmp_path / "out")]
    words += ["--steps", "2", "--batch-size", "2", "--exploration", "0", "--patch-size", "24"]
    assert main(words) == 2
    assert "looks at patches of 63 pixels" in capsys.readouterr().err
    assert main([*words, "--chain", "dejpeg_1", "nonsense"]) == 2
    assert "unknown tool 'nonsense' in --chain: choose from deblur_1" in capsys.readouterr().err
    assert main([*words, "--chain", "dejpeg_1", "denoise_2"]) == 0
    for name, changed in (("deblur_1", False), ("denoise_2", True), ("dejpeg_1", True)):
        before, after = weights(start, name), weights(tmp_path / "out", name)
        assert changed != all(torch.equal(before[key], after[key]) for key in before), name


def test_the_command_says_which_beginning_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start, policy = toolbox(tmp_path / "start"), tmp_path / "agent.safetensors"
    save_policy(RecurrentAgent(NAMES), policy)
    words = ["train", "joint", "--toolbox", str(start), "--policy", str(policy), "--out", str(tmp_path / "out")]
    words += ["--steps", "1", "--batch-size", "1"]  # soon over if a message is missing
    assert main([*words, "--init-from", "dejpeg_1=nonsense"]) == 2
    assert "unknown tool 'nonsense' in --init-from" in capsys.readouterr().err
    assert main([*words, "--zero-init", "dejpeg_1", "nonsense"]) == 2
    assert "unknown tool 'nonsense' in --zero-init" in capsys.readouterr().err
    assert main([*words, "--init-from", "dejpeg_1=denoise_2", "dejpeg_1=deblur_1"]) == 2
    assert "--init-from names dejpeg_1 twice" in capsys.readouterr().err
    assert main([*words, "--zero-init", "dejpeg_1", "--chain", "denoise_2"]) == 2
    assert "--zero-init dejpeg_1: --chain has no such step" in capsys.readouterr().err
    assert main([*words, "--freeze", "nonsense"]) == 2
    assert "unknown tool 'nonsense' in --freeze" in capsys.readouterr().err
    assert main([*words, "--freeze", "dejpeg_1", "--chain", "dejpeg_1"]) == 2
    assert "--freeze dejpeg_1: nothing is left to learn" in capsys.readouterr().err
    assert main([*words, "--freeze", "dejpeg_1", "--zero-init", "dejpeg_1"]) == 2
    assert "--freeze dejpeg_1: --zero-init names it, too" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*words, "--init-from", "dejpeg_1"])
    assert "'dejpeg_1' is not of the form TOOL=OTHER" in capsys.readouterr().err


def test_the_command_begins_as_it_is_told(tmp_path: Path) -> None:
    start, policy, out = toolbox(tmp_path / "start"), tmp_path / "agent.safetensors", tmp_path / "out"
    torch.manual_seed(1)
    update_toolbox(start, [ToolWeights("denoise_2", "three_layer", ThreeLayer().state_dict())])
    save_policy(RecurrentAgent(NAMES), policy)
    words = ["train", "joint", "--toolbox", str(start), "--policy", str(policy), "--out", str(out), "--steps", "1"]
    words += ["--batch-size", "1", "--exploration", "0", "--severity", "light", "--chain", "denoise_2", "dejpeg_1"]
    assert main([*words, "--init-from", "dejpeg_1=denoise_2", "deblur_1=denoise_2", "--zero-init", "dejpeg_1"]) == 0
    recipe = read_tool(out / "dejpeg_1.safetensors", "three_layer").recipe
    begun_as = "dejpeg_1=denoise_2 deblur_1=denoise_2"
    assert (recipe["begin"], recipe["hand_on"], recipe["severity"]) == (begun_as, "dejpeg_1", "light")
    original, unused = weights(start, "denoise_2"), weights(out, "deblur_1")
    assert all(torch.equal(unused[key], original[key]) for key in original)
