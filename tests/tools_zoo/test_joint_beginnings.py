from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from agents.policies.heuristics import FixedChain
from tests.support.three_tools import NAMES, STOP, chain, networks, settings, source, weights
from tools_zoo.networks import NETWORKS, ThreeLayer
from tools_zoo.toolboxes import ToolWeights, read_tool, update_toolbox
from tools_zoo.training.initial_weights import begun
from tools_zoo.training.joint import train_jointly
from tools_zoo.training.settings import Budget
from tools_zoo.training.trainer import TrainingError


def test_tools_may_begin_as_others_and_hand_on_what_they_get() -> None:
    torch.manual_seed(1)
    trained = ToolWeights("denoise_2", "three_layer", ThreeLayer().state_dict(), {"steps": 5})
    found = {name: ToolWeights(name, "three_layer", network.state_dict()) for name, network in networks().items()}
    found |= {"denoise_2": trained}
    starts = begun(found, {"dejpeg_1": "denoise_2", "deblur_1": "dejpeg_1"}, ["dejpeg_1"])
    assert tuple(starts) == NAMES
    assert (starts["dejpeg_1"].name, starts["dejpeg_1"].recipe) == ("dejpeg_1", {"steps": 5})
    assert starts["denoise_2"].state is trained.state
    assert torch.equal(starts["dejpeg_1"].state["conv1.weight"], trained.state["conv1.weight"])
    assert torch.equal(starts["deblur_1"].state["conv3.weight"], found["dejpeg_1"].state["conv3.weight"])  # as it was
    handed, images = ThreeLayer(), torch.rand(2, 3, 20, 20)
    handed.load_state_dict(dict(starts["dejpeg_1"].state))
    assert torch.equal(handed(images), images)
    assert not torch.equal(trained.state["conv3.weight"], torch.zeros_like(trained.state["conv3.weight"]))
    with pytest.raises(ValueError, match="unknown tool 'deblur_9' to begin with: choose from deblur_1"):
        begun(found, {"deblur_9": "denoise_2"})


@pytest.mark.parametrize("network", sorted(NETWORKS))
def test_whatever_its_network_a_tool_can_hand_on_what_it_gets(network: str) -> None:
    made, images = NETWORKS[network](), torch.rand(2, 3, 24, 24)
    with torch.no_grad():
        assert not torch.equal(made(images), images)
        start = begun({"deblur_3": ToolWeights("deblur_3", network, made.state_dict())}, {}, ["deblur_3"])["deblur_3"]
        made.load_state_dict(dict(start.state))
        assert torch.equal(made(images), images)


def test_a_tool_that_hands_on_and_is_in_no_chain_says_so(tmp_path: Path) -> None:
    chosen = settings(tmp_path, budget=Budget(steps=1), zero_init=("denoise_2",))
    torch.manual_seed(1)
    tool = ToolWeights("denoise_2", "three_layer", ThreeLayer().state_dict(), {"steps": 5})
    update_toolbox(chosen.toolbox, [tool])
    train_jointly(chosen, source(), FixedChain((0,), STOP))
    assert not weights(chosen.out, "denoise_2")["conv3.weight"].any()
    recipe = read_tool(chosen.out / "denoise_2.safetensors", "three_layer").recipe
    assert recipe == {"steps": 5, "last_layer": "zeros"}


def test_tools_to_keep_stay_as_they_are_while_others_learn_what_to_make_of_theirs(tmp_path: Path) -> None:
    chosen = settings(tmp_path, frozen_tools=("denoise_2",), intermediate_weight=0.5)
    torch.manual_seed(1)
    update_toolbox(chosen.toolbox, [ToolWeights("denoise_2", "three_layer", ThreeLayer().state_dict())])
    train_jointly(chosen, source(), FixedChain((1, 2), STOP))
    for name, changed in (("denoise_2", False), ("dejpeg_1", True)):
        before, after = weights(chosen.toolbox, name), weights(chosen.out, name)
        assert changed != all(torch.equal(before[key], after[key]) for key in before), name
    recipes = [
        read_tool(chosen.out / f"{name}.safetensors", "three_layer").recipe for name in ("denoise_2", "dejpeg_1")
    ]
    assert [recipe.get("keep") for recipe in recipes] == [None, "denoise_2"]
    with pytest.raises(ValueError, match="unknown tool 'denoise_9' to keep: choose from deblur_1"):
        train_jointly(dataclasses.replace(chosen, frozen_tools=("denoise_9",)), source(), chain())


def test_a_run_does_not_go_on_from_another_beginning(tmp_path: Path) -> None:
    chosen = settings(tmp_path, budget=Budget(steps=1), copies={"dejpeg_1": "denoise_2"})
    train_jointly(chosen, source(), chain())
    with pytest.raises(TrainingError, match="was made with begin dejpeg_1=denoise_2, not deblur_1=denoise_2"):
        train_jointly(dataclasses.replace(chosen, copies={"deblur_1": "denoise_2"}), source(), chain())


def test_what_a_run_begins_with_is_what_it_trains(tmp_path: Path) -> None:
    chosen = settings(tmp_path, budget=Budget(steps=1))
    torch.manual_seed(1)
    update_toolbox(chosen.toolbox, [ToolWeights("denoise_2", "three_layer", ThreeLayer().state_dict())])
    train_jointly(dataclasses.replace(chosen, copies={"dejpeg_1": "denoise_2"}), source(), FixedChain((0,), STOP))
    other, copied = weights(chosen.toolbox, "denoise_2"), weights(chosen.out, "dejpeg_1")  # in no chain: as it began
    assert all(torch.equal(copied[key], other[key]) for key in other)
    assert all(torch.equal(value, weights(chosen.out, "denoise_2")[key]) for key, value in other.items())
