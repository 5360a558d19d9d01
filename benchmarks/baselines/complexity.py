"""Computation of a network: multiply-accumulates counted while it runs, so recursive layers count in full."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def parameter_count(*modules: object) -> int:
    """Parameters of the modules; other objects have none."""
    return sum(value.numel() for module in modules if isinstance(module, nn.Module) for value in module.parameters())


def count_macs(network: nn.Module, run: Callable[[Any], object]) -> int:
    """The multiply-accumulates of convolutions, linear layers and LSTMs in one run.

    Args:
        network: what is counted; a copy of it runs.
        run: called with the copy, on the CPU; it runs it once.
    """
    twin = copy.deepcopy(network).cpu().eval()
    total = 0

    def add(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal total
        total += _macs(layer, inputs[0], output)

    for layer in twin.modules():
        layer.register_forward_hook(add)
    with torch.no_grad():
        run(twin)
    return total


def macs_per_pixel(network: nn.Module, colours: int = 3, size: int = 8) -> float:
    """Multiply-accumulates per input pixel, counted on ``(1, colours, size, size)``."""
    images = torch.zeros(1, colours, size, size)
    return count_macs(network, lambda twin: twin(images)) / size**2


def _macs(layer: nn.Module, entered: Tensor, left: Any) -> int:
    if isinstance(layer, nn.Conv2d):
        return int(left.numel() * layer.weight[0].numel())
    if isinstance(layer, nn.ConvTranspose2d):
        return int(entered.numel() * layer.weight[0].numel())
    if isinstance(layer, nn.Linear):
        return int(left.numel() * layer.in_features)
    if isinstance(layer, nn.LSTM):
        steps = left[0].numel() // left[0].shape[-1]
        return int(steps) * sum(value.numel() for name, value in layer.named_parameters() if name.startswith("weight"))
    return 0
