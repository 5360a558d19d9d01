"""Losses of restored images, and how batches become tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

PixelBatch = npt.NDArray[np.uint8] | Tensor
"""uint8 RGB ``(N, H, W, 3)``, on the host or on a device."""
Batch = tuple[PixelBatch, PixelBatch]
"""Inputs and targets."""
Loss = Callable[[Tensor, Tensor], Tensor]
"""The loss of restored images, given the clean ones; both ``(N, 3, H, W)``."""

_MSE_AT_25_DB, _CEILING = 10**-2.5, 5e-5  # the ceiling is 43 dB: what is better needs no tool


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean squared error of ``(N, 3, H, W)`` images."""
    return F.mse_loss(outputs.float(), targets)


def psnr_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean over images of the logarithm of the mean squared error, so that lowering it raises the mean PSNR.

    An easy image counts as much as a hard one. The loss is scaled so that at 25 dB its slope is that of
    :func:`squared_error`, and bounded (:data:`_CEILING`) where an image is perfect.
    """
    errors = (outputs.float() - targets).square().mean((1, 2, 3))
    return _MSE_AT_25_DB * (errors + _CEILING).log().mean()


LOSSES: Mapping[str, Loss] = MappingProxyType({"psnr": psnr_loss, "mse": squared_error})
"""The losses by name."""


def restoring(network: nn.Module, loss: Loss, device: str | torch.device = "cpu") -> Callable[[Batch], Tensor]:
    """The objective of one network: the loss of its outputs for a batch."""

    def objective(batch: Batch) -> Tensor:
        inputs, targets = (as_tensor(side, device) for side in batch)
        return loss(network(inputs), targets)

    return objective


def as_tensor(images: PixelBatch, device: str | torch.device = "cpu") -> Tensor:
    """uint8 RGB ``(N, H, W, 3)`` as float32 NCHW in [0, 1] on ``device``, channels last in memory."""
    return torch.as_tensor(images).to(device).permute(0, 3, 1, 2).float().div_(255)
