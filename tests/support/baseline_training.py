"""Small trainings of baselines, and baselines that are not as they begin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from benchmarks.baselines import BASELINES
from benchmarks.baselines.same_size import BaselineNetwork
from benchmarks.baselines.training import BaselineTraining
from restore_env.images.sources import ImageSource, open_images
from tests.support.toolkit import photographs


def shaken(name: str) -> BaselineNetwork:
    """A network with nothing at 0, its normalisation's statistics included."""
    torch.manual_seed(0)
    network = BASELINES[name].network().eval()
    with torch.no_grad():
        for key, value in network.state_dict().items():
            if "running" in key:
                value.copy_(torch.rand_like(value) + 0.5)
            elif value.is_floating_point():
                value.add_(0.01 * torch.randn_like(value))
    return network


def source() -> ImageSource:
    opened = open_images(photographs(2, 120, 140), min_size=16)
    assert isinstance(opened, ImageSource)
    return opened


def settings(out: Path, name: str = "cascade", **changes: object) -> BaselineTraining:
    values: dict[str, Any] = {"baseline": name, "out": out, "steps": 8, "batch_size": 2, "patch_size": 12, **changes}
    return BaselineTraining(**values)
