"""Types of image arrays and conversions between them; float NCHW tensors as 8 bits and as NHWC arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

Pixels: TypeAlias = npt.NDArray[np.uint8]
"""8-bit values, RGB ``(H, W, 3)`` unless said otherwise."""
Float: TypeAlias = npt.NDArray[np.float32]
"""float32 values, RGB ``(H, W, 3)`` in [0, 1] unless said otherwise."""

BAND = 256
"""Rows that are converted at once where an image may be large."""


def to_float(pixels: Pixels) -> Float:
    """8-bit values as float32 in [0, 1]."""
    floats = pixels.astype(np.float32)
    floats *= np.float32(1 / 255)
    return floats


def as_float(colours: npt.NDArray[Any]) -> Float:
    """Values of uint8, uint16 (65535 becomes 1) or float32 as float32 in [0, 1]."""
    if colours.dtype == np.uint8:
        return to_float(colours)
    if colours.dtype == np.uint16:
        return np.asarray(colours * np.float32(1 / 65535), dtype=np.float32)
    return np.asarray(colours, dtype=np.float32)


def of_type(colours: Float, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Floats, clipped to [0, 1], as uint8, uint16 or float32."""
    clipped = colours.clip(0, 1)
    return clipped if dtype.kind == "f" else np.rint(clipped * np.iinfo(dtype).max).astype(dtype)


def has_no_colour(colours: npt.NDArray[Any]) -> bool:
    """Whether R = G = B in every pixel of an RGB image ``(H, W, 3)``."""
    red = colours[..., 0]
    return bool((red == colours[..., 1]).all() and (red == colours[..., 2]).all())


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
    return rounded.int().byte()  # through int32 it takes a third of the time on a CPU


def to_hwc(images: Tensor) -> npt.NDArray[Any]:
    """RGB images ``(N, 3, H, W)`` on any device as an array ``(N, H, W, 3)`` of the same type, contiguous and new."""
    n, channels, height, width = images.shape
    if images.device.type != "cpu":
        return np.asarray(images.permute(0, 2, 3, 1).contiguous().cpu().numpy())
    planes = images.transpose(0, 1).reshape(channels, n * height, width)
    if not planes.numel():
        return np.empty((n, height, width, channels), dtype=planes.numpy().dtype)
    return np.asarray(cv2.merge(list(planes.numpy()))).reshape(n, height, width, channels)  # 4 times as fast as PyTorch
