"""From what tools work on, float NCHW tensors, to what people and agents see: bytes, and arrays of NHWC."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def quantized(images: Tensor) -> Tensor:
    """Images in [0, 1] as they are observed and saved: clipped, rounded to uint8."""
    rounded = images.clamp(0, 1).mul_(255).round_()
    return rounded.to(torch.int32).to(torch.uint8)  # by way of int32 PyTorch takes a third of the time on a CPU


def to_hwc(images: Tensor) -> npt.NDArray[Any]:
    """RGB images ``(N, 3, H, W)`` on any device as an array ``(N, H, W, 3)`` of the same type, contiguous and new."""
    n, channels, height, width = images.shape
    if images.device.type != "cpu":
        return np.asarray(images.permute(0, 2, 3, 1).contiguous().cpu().numpy())
    planes = images.transpose(0, 1).reshape(channels, n * height, width)
    if not planes.numel():
        return np.empty((n, height, width, channels), dtype=planes.numpy().dtype)
    return np.asarray(cv2.merge(list(planes.numpy()))).reshape(n, height, width, channels)  # PyTorch takes 4 times it
