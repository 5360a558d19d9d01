"""A small toolbox that learns fast, and the settings to train it jointly with."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from agents.policies.heuristics import FixedChain
from tools_zoo.networks import ThreeLayer, ToolNetwork, last_layer
from tools_zoo.toolboxes import ToolWeights, read_tool, update_toolbox
from tools_zoo.training.joint import JointTraining

NAMES = ("deblur_1", "denoise_2", "dejpeg_1")
STOP = len(NAMES)


def networks() -> dict[str, ToolNetwork]:
    torch.manual_seed(0)
    return {name: ThreeLayer() for name in NAMES}


def toolbox(folder: Path) -> Path:
    """Tools that leave an image as it is, ready to learn: random weights but for the last layer."""
    tools = []
    for name, network in networks().items():
        torch.nn.init.zeros_(last_layer(network).weight)
        tools.append(ToolWeights(name, "three_layer", network.state_dict()))
    return update_toolbox(folder, tools)


def settings(tmp_path: Path, out: str = "out", **changes: Any) -> JointTraining:
    start = tmp_path / "start"
    if not start.exists():
        toolbox(start)
    base = JointTraining(
        out=tmp_path / out,
        toolbox=str(start),
        steps=8,
        exploration=0.0,
        batch_size=2,
        patch_size=20,
        optimizer="adam",
        learning_rate=1e-3,
        warmup_steps=60,
    )
    return dataclasses.replace(base, **changes)


def weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return dict(read_tool(folder / f"{name}.safetensors", "three_layer").state)


def chain() -> FixedChain:
    return FixedChain((1, 2), STOP)
