"""Types of image arrays, and conversion of float NCHW tensors to 8 bits and to NHWC arrays."""

from __future__ import annotations

from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Pixels: TypeAlias = npt.NDArray[np.uint8]
"""8-bit values, RGB ``(H, W, 3)`` unless said otherwise."""
Float: TypeAlias = npt.NDArray[np.float32]
"""float32 values, RGB ``(H, W, 3)`` in [0, 1] unless said otherwise."""


def to_float(pixels: Pixels) -> Float:
    """8-bit values as float32 in [0, 1]."""
    floats = pixels.astype(np.float32)
    floats *= np.float32(1 / 255)
    return floats


def over_white(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Composite 8-bit colours with alpha, the last channel, over white."""
    alpha = pixels[..., -1:].astype(np.uint16)
    total = pixels[..., :-1] * alpha
    total += 255 * (255 - alpha) + 127
    total += 1 + (total >> 8)  # division by 255, exact for such numbers
    return (total >> 8).astype(np.uint8)


def quantized(images: Tensor) -> Tensor:
    """Images in [0, 1], clipped and rounded to uint8."""
    rounded = images.clamp(0, 1).mul_(255).round_()
    return rounded.to(torch.int32).to(torch.uint8)  # through int32 it takes a third of the time on a CPU


def to_hwc(images: Tensor) -> npt.NDArray[Any]:
    """RGB images ``(N, 3, H, W)`` on any device as an array ``(N, H, W, 3)`` of the same type, contiguous and new."""
    n, channels, height, width = images.shape
    if images.device.type != "cpu":
        return np.asarray(images.permute(0, 2, 3, 1).contiguous().cpu().numpy())
    planes = images.transpose(0, 1).reshape(channels, n * height, width)
    if not planes.numel():
        return np.empty((n, height, width, channels), dtype=planes.numpy().dtype)
    return np.asarray(cv2.merge(list(planes.numpy()))).reshape(n, height, width, channels)  # 4 times as fast as PyTorch
