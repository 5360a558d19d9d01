"""Baselines on disk, as safetensors with the row's name and the recipe; and as tools, at their fastest."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from benchmarks.baselines.catalog import BASELINES, Baseline, find_baseline
from benchmarks.baselines.same_size import BaselineNetwork
from tools_zoo.toolboxes import passes
from tools_zoo.weight_files import load_state, read_weights, recipe_of, write_weights

SHIPPED = Path(__file__).parents[1] / "weights"
"""The folder of the baselines' weights that come with the repository."""
FLAT = 0.05
"""dB that twice the training may add at most, if a baseline is to count as trained out."""
FEW = 50_000
"""With fewer patches nothing is trained out: the learning rate has hardly warmed up, and what has learnt nothing gains
little by twice as much of it."""
TELLING = 0.4
"""Doublings that the latest passes must have added, if what they gained is to tell what a whole one would: what less
training gains is as small as the error of measuring it."""

GROWN_FROM, GROWN_AFTER, GROWN_MINUTES, GROWN_BY = "grown_from", "grown_after", "grown_minutes", "grown_by"
"""In the recipe of what grew from another baseline or from tools: their names, the patches that they had seen (0: their
files do not say), and the minutes and commands that it took; of what these grew from, too."""
GROWN = (GROWN_FROM, GROWN_AFTER, GROWN_MINUTES, GROWN_BY)


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
    return BaselineWeights(baseline, state, recipe_of(header))


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
    """Training patches seen, in all passes."""
    slope: float | None
    """dB of validation PSNR that a doubling of the patches added, as the latest pass tells, or the latest ones together
    where that one was short (:data:`TELLING`), each being annealed to its end; those of what it grew from count. If the
    patches were of another kind than before, it counts what was gained by that, too. None if nothing had been trained
    before, if the latest pass was unfinished, or if those that are known to have been measured on the same patches, and
    where they began, were short together."""
    origin: str = ""
    """What it grew from, in words; nothing if it began with random weights."""

    @classmethod
    def of(cls, recipe: Mapping[str, Any]) -> Training:
        """What a recipe tells of it."""
        training = cls._of_passes(passes(recipe), int(recipe.get(GROWN_AFTER, 0)))
        if GROWN_FROM not in recipe:
            return training
        name = recipe[GROWN_FROM]
        title = BASELINES[name].title if name in BASELINES else name  # a tool's
        after = f" after {_words(recipe[GROWN_AFTER])}" if recipe[GROWN_AFTER] else ""
        grown = f"grown from {title}{after}"
        return replace(training, origin=grown)

    @classmethod
    def _of_passes(cls, recipes: Sequence[Mapping[str, Any]], before: int) -> Training:
        patches = [int(recipe.get("patches", 0)) for recipe in recipes]
        total = sum(patches)
        if not patches[-1] or not recipes[-1].get("finished"):
            return cls(total, None)
        for first in reversed(range(len(recipes))):
            earlier = before + sum(patches[:first])
            ended = recipes[first - 1]["psnr_output"] if first else None
            start = recipes[first].get("psnr_start", ended)
            if not earlier or start is None:
                break
            doublings = math.log2((before + total) / earlier)
            if doublings >= TELLING:
                return cls(total, (float(recipes[-1]["psnr_output"]) - float(start)) / doublings)
            if recipes[first].get("psnr_start") != ended:  # the pass before was measured on other patches
                break
        return cls(total, None)

    @property
    def flat(self) -> bool:
        """Whether twice the training would hardly add anything."""
        return self.slope is not None and self.slope <= FLAT and self.patches >= FEW

    def __str__(self) -> str:
        seen = ", ".join(filter(None, (self.origin, _words(self.patches))))
        if self.slope is None:
            return f"{seen}, slope unknown: may be undertrained"
        return f"{seen}, {self.slope:+.2f} dB a doubling: {'flat' if self.flat else 'undertrained'}"


def _words(patches: int) -> str:
    return f"{patches / 1e6:.2f} M patches" if patches >= FEW else f"{patches:,} patches"
