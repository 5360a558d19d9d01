"""The artefact loss: errors that adversarial training adds, weighted by how much they vary from pixel to pixel.

Source: Liang, Zeng and Zhang, "Details or Artifacts: A Locally Discriminative Learning Approach to Realistic Image
Super-Resolution" (LDL), CVPR 2022, section 3.2. There the comparison is with the moving average of the network; here it
is with the network as it was before adversarial training.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

WINDOW = 7
"""Pixels along a side, over which the local variance is computed; as published."""
RAMP = 0.01
"""Growth of an error from which it counts in full. Published is a step at 0, where rounding decides."""
GLOBAL_POWER = 0.2
"""Of the variance of an image's whole residual; as published."""


def artefact_weights(outputs: Tensor, targets: Tensor, before: Tensor) -> Tensor:
    """How likely each pixel is an artefact: ``(N, 1, H, W)``, 0 where the error is no larger than it was before.

    Args:
        outputs: ``(N, 3, H, W)`` float RGB.
        targets: the same shape.
        before: the outputs before adversarial training, the same shape.
    """
    with torch.no_grad():
        residual, reference = ((images - targets).abs().sum(1, keepdim=True) for images in (outputs, before))
        padded = F.pad(residual, [WINDOW // 2] * 4, mode="reflect")
        mean, square = (F.avg_pool2d(values, WINDOW, stride=1) for values in (padded, padded.square()))
        local = (square - mean.square()).clamp(min=0)
        whole = residual.var(dim=(1, 2, 3), keepdim=True) ** GLOBAL_POWER
        return whole * local * ((residual - reference) / RAMP).clamp(0, 1)


def artefact_loss(outputs: Tensor, targets: Tensor, before: Tensor) -> Tensor:
    """The mean absolute error, weighted by :func:`artefact_weights`; a scalar."""
    return (artefact_weights(outputs, targets, before) * (outputs - targets).abs()).mean()
