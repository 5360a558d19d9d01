"""Multiply-accumulates of a network, counted while it runs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def macs_per_pixel(network: nn.Module, images: Tensor, *others: Tensor) -> float:
    """Multiply-accumulates of ``network(images, *others)`` per pixel of one image ``(1, 3, H, W)``."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(images, *others)
    return float(counter.get_total_flops() / 2 / images[0, 0].numel())
