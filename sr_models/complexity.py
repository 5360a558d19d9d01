"""Multiply-accumulates of a network, counted while it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


def macs_per_pixel(network: nn.Module, images: Tensor, *others: Tensor) -> float:
    """Multiply-accumulates of ``network(images, *others)`` per pixel of one image ``(1, 3, H, W)``."""
    with _Counter() as counter, torch.no_grad():
        network(images, *others)
    return float(counter.flops / 2 / images[0, 0].numel())


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts by PyTorch's own formulas, as its FlopCounterMode, which would import the compiler: that takes seconds."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops: int = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        output = func(*args, **named)
        if func._overloadpacket in flop_registry:
            self.flops += flop_registry[func._overloadpacket](*args, **named, out_val=output)
        return output
