"""Baselines on disk, as safetensors with the row's name and the recipe; and as tools, at their fastest."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from benchmarks.baselines.catalog import Baseline, find_baseline
from benchmarks.baselines.same_size import BaselineNetwork
from tools_zoo.toolboxes import passes
from tools_zoo.weight_files import load_state, read_weights, recipe_of, write_weights

SHIPPED = Path(__file__).parents[1] / "weights"
"""The folder of the baselines' weights that come with the repository."""
FLAT, FEWEST = 0.05, 50_000
"""A baseline counts as trained out if a doubling of its training adds so many dB at most, and it has seen so many
patches at least."""


@dataclass(frozen=True)
class BaselineWeights:
    """A trained baseline."""

    baseline: Baseline
    state: Mapping[str, Tensor]
    recipe: Mapping[str, Any]


def write_baseline(path: Path, weights: BaselineWeights) -> None:
    """Write weights as safetensors; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"baseline": weights.baseline.name, "recipe": json.dumps(dict(weights.recipe))}
    write_weights(path, weights.state, header)


def read_baseline(path: str | os.PathLike[str], name: str | None = None) -> BaselineWeights:
    """Read what :func:`write_baseline` wrote.

    Args:
        path: the file.
        name: the row that it must be of; None: any.

    Raises:
        ValueError: no such file, not weights of a baseline, of another one, or damaged.
    """
    state, header = read_weights(path, expected="what python -m benchmarks.baselines.train wrote")
    if "baseline" not in header:
        raise ValueError(f"{path}: not weights of a baseline (its header names none)")
    baseline = find_baseline(header["baseline"])
    if name is not None and name != baseline.name:
        raise ValueError(f"{path}: weights of {baseline.name}, not of {name}")
    load_state(baseline.network(), state, path, baseline.name)
    return BaselineWeights(baseline, state, recipe_of(header, path))


class BaselineTool(nn.Module):
    """A baseline as a :class:`restore_env.Tool`, at its fastest: normalisation folded into the convolutions.

    A batch goes through it in parts whose activations stay small.

    Args:
        name: what toolchains call it.
        network: with its weights; it is changed.
        macs: multiply-accumulates per input pixel.
    """

    batch_pixels = 2**18  # of the result: 66 patches of the protocol

    def __init__(self, name: str, network: BaselineNetwork, macs: float) -> None:
        super().__init__()
        self.name, self.macs_per_pixel = name, macs
        self.scale, self.receptive_radius = network.scale, network.receptive_radius
        fold_normalisation(network.eval())
        self.network = network.requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Tensor:
        """Restore ``(N, 3, H, W)`` float32 RGB."""
        size = max(1, self.batch_pixels // (images.shape[-2] * images.shape[-1] * self.scale**2))
        parts = torch.split(images.contiguous(memory_format=torch.channels_last), size)
        return torch.cat([self.network(part) for part in parts])


def fold_normalisation(network: nn.Module) -> None:
    """Put every batch normalisation that follows a convolution in a ``Sequential`` into that convolution."""
    for module in network.modules():
        if not isinstance(module, nn.Sequential):
            continue
        for index in range(len(module) - 1):
            first, second = module[index], module[index + 1]
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                module[index], module[index + 1] = fuse_conv_bn_eval(first, second), nn.Identity()


def as_tool(weights: BaselineWeights) -> BaselineTool:
    """The trained network as a tool on the CPU."""
    network = weights.baseline.network()
    network.load_state_dict(dict(weights.state))
    return BaselineTool(weights.baseline.name, network, weights.baseline.macs_per_pixel)


@dataclass(frozen=True)
class Training:
    """How far a baseline was trained."""

    patches: int
    """Training patches seen."""
    slope: float | None
    """dB of validation PSNR per doubling of the patches, by the latest run; None if that is not known."""

    @classmethod
    def of(cls, recipe: Mapping[str, Any]) -> Training:
        """What a recipe says of it."""
        patches = [int(one.get("patches") or 0) for one in passes(recipe)]
        before, total = sum(patches[:-1]) + int(recipe.get("grown_after") or 0), sum(patches)
        if not before or not patches[-1] or not recipe.get("finished", True) or "psnr_start" not in recipe:
            return cls(total, None)
        gain = float(recipe["psnr_output"]) - float(recipe["psnr_start"])
        return cls(total, gain / math.log2((before + patches[-1]) / before))

    @property
    def flat(self) -> bool:
        """Whether twice the training would hardly add anything."""
        return self.slope is not None and self.slope <= FLAT and self.patches >= FEWEST

    def __str__(self) -> str:
        seen = f"{self.patches / 1e6:.2f} M patches" if self.patches >= FEWEST else f"{self.patches:,} patches"
        return f"{seen}, {'trained out' if self.flat else 'undertrained'}"
