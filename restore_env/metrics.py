"""Quality metrics PSNR and SSIM of batches of NCHW float32 RGB images in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional as F

Metric = Callable[[Tensor, Tensor], Tensor]
"""``metric(images, targets)`` maps two batches ``(N, 3, H, W)`` to scores ``(N,)``; higher must be better."""

MSE_FLOOR = 1e-10
"""Limits PSNR to 100 dB, as RL-Restore does."""
EQUAL = 99.0
"""dB: a PSNR above that of 8-bit images that differ visibly."""

_SSIM_SIGMA, _SSIM_RADIUS = 1.5, 5
_LUMA = (65.481, 128.553, 24.966)
_C1, _C2 = 0.01**2, 0.03**2
_WEIGHTS = [math.exp(-0.5 * (offset / _SSIM_SIGMA) ** 2) for offset in range(-_SSIM_RADIUS, _SSIM_RADIUS + 1)]
_TAPS = [weight / sum(_WEIGHTS) for weight in _WEIGHTS]


def psnr(images: Tensor, targets: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB: ``10 log10(1 / (MSE + 1e-10))`` over all channels, without clipping.

    Args:
        images: ``(N, 3, H, W)``, RGB in [0, 1]; values outside are not clipped.
        targets: the same shape.

    Returns:
        ``(N,)`` float64, at most 100.
    """
    squared = (images - targets).square_()
    rows = squared.sum(-1, dtype=torch.float64)  # rows first, so the result does not depend on batch size or threads
    return -10 * torch.log10(rows.flatten(1).sum(1) / math.prod(squared.shape[1:]) + MSE_FLOOR)


def ssim(images: Tensor, targets: Tensor) -> Tensor:
    """Structural similarity (Wang et al., 2004): 11x11 Gaussian window of sigma 1.5, RGB channels averaged.

    Equal to scikit-image's ``structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    data_range=1)``: the mean is taken where the window lies inside the image.

    Args:
        images: ``(N, 3, H, W)``, RGB in [0, 1], height and width 11 or more.
        targets: the same shape.

    Returns:
        ``(N,)`` float64, at most 1.

    Raises:
        ValueError: an image is smaller than the window.
    """
    n, channels, height, width = images.shape
    window = 2 * _SSIM_RADIUS + 1
    if min(height, width) < window:
        raise ValueError(f"SSIM needs {window}x{window} pixels or more, got {width}x{height}")
    x, y = images.double(), targets.double()
    planes = torch.cat([x, y, x * x, y * y, x * y]).reshape(-1, 1, height, width)
    taps = planes.new_tensor(_TAPS)
    means = F.conv2d(F.conv2d(planes, taps.reshape(1, 1, -1, 1)), taps.reshape(1, 1, 1, -1))
    mx, my, mxx, myy, mxy = means.reshape(5, n, channels, *means.shape[-2:])
    vx, vy, vxy = mxx - mx * mx, myy - my * my, mxy - mx * my
    similarity = ((2 * mx * my + _C1) * (2 * vxy + _C2)) / ((mx * mx + my * my + _C1) * (vx + vy + _C2))
    means_of_images: Tensor = similarity.flatten(1).mean(1)
    return means_of_images


def luma(images: Tensor) -> Tensor:
    """The Y channel of Rec. 601 as MATLAB's rgb2ycbcr, without rounding; super-resolution is measured on it.

    Args:
        images: ``(N, 3, H, W)``, RGB in [0, 1].

    Returns:
        ``(N, 1, H, W)``, in [16, 235] / 255.
    """
    weights = images.new_tensor(_LUMA).reshape(1, 3, 1, 1)
    return ((images * weights).sum(1, keepdim=True) + 16) / 255


METRICS: Mapping[str, Metric] = MappingProxyType({"psnr": psnr, "ssim": ssim})
"""The metrics with a name."""
