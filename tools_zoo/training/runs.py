"""What trainings share: photographs, those held out for validation, and what is measured on these."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor, nn

from restore_env.images.sources import ImageSource, open_images
from restore_env.metrics import psnr
from tools_zoo.training.losses import Batch, as_tensor
from tools_zoo.training.settings import PhotographSettings

HELD_OUT_EVERY = 25
"""One of this many images is kept from training, for validation."""
OUTPUT, INPUT = "psnr/output", "psnr/input"
"""Tags of a run's log: PSNR of restored validation patches, and of the distorted ones."""
CURVES: Mapping[str, str] = MappingProxyType({OUTPUT: "restored", INPUT: "input"})
"""The tags that are plotted, and their labels."""


@dataclass(frozen=True)
class Validation:
    """What is measured of a network at the beginning of its training, every so often, and at the end."""

    measure: Callable[[], Mapping[str, float]]
    """Measures the network as it is, by the log's tags; leaves it in training mode."""
    seconds: float
    """From one measurement to the next."""
    constants: Mapping[str, float] = field(default_factory=dict)
    """What is logged with it and stays the same, such as the input's PSNR."""
    curves: Mapping[str, str] = field(default_factory=lambda: CURVES)
    """The tags that are plotted, and their labels."""
    label: str = "validation PSNR, dB"
    """Of the plot's vertical axis."""

    @classmethod
    def of_network(
        cls,
        network: nn.Module,
        pairs: Batch,
        device: str,
        seconds: float,
        restore: Callable[[Tensor], Tensor] | None = None,
    ) -> Validation:
        """PSNR of distorted patches before and after a network, or after ``restore``, which calls it."""
        inputs, targets = (as_tensor(side, device) for side in pairs)
        before = {INPUT: float(psnr(inputs, targets).mean())}
        return cls(lambda: {OUTPUT: validate(network, inputs, targets, restore)}, seconds, before)


def validate(
    network: nn.Module, inputs: Tensor, targets: Tensor, restore: Callable[[Tensor], Tensor] | None = None
) -> float:
    """Mean PSNR of a network's outputs for ``inputs`` ``(N, 3, H, W)``, dB; it is left in training mode."""
    network.eval()
    with torch.no_grad():
        score = float(psnr((restore or network)(inputs), targets).mean())
    network.train()
    return score


def photographs(settings: PhotographSettings, min_size: int) -> ImageSource:
    """Open the photographs that settings name; raise ``ValueError`` if these are pairs."""
    source = open_images(settings.images, min_size=min_size, cache_dir=settings.cache_dir)
    if not isinstance(source, ImageSource):
        raise ValueError(f"{settings.images}: networks are trained on clean photographs, not on pairs")
    return source


def split_images(count: int) -> tuple[list[int], list[int]]:
    """Which of ``count`` images are trained on, and which are kept for validation (all are both, if there are few)."""
    held_out = list(range(0, count, HELD_OUT_EVERY)) if count >= HELD_OUT_EVERY else list(range(count))
    return [i for i in range(count) if i not in set(held_out)] or held_out, held_out
