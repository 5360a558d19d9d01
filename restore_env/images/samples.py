"""Grey, transparent and deep photos: what tools get of them, and the photo that a result is written as."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from torch import Tensor

from restore_env.images.decoding import Photo, as_rgb8
from restore_env.images.tiling import to_pixels

_BAND = 1024  # rows that are converted at once


def tool_input(photo: Photo) -> npt.NDArray[np.uint8] | npt.NDArray[np.float32]:
    """The colours that tools restore, RGB ``(H, W, 3)``: uint8, or float32 in [0, 1] of a photo of more than 8 bits.

    Where a photo is wholly transparent they are those of the nearest pixel that is not.
    """
    colours = photo.pixels if photo.exact is None else photo.exact
    if photo.alpha is not None:
        colours = _extended(colours, photo.alpha)
    if colours.dtype == np.uint16:
        return np.asarray(colours * np.float32(1 / 65535), dtype=np.float32)
    return np.asarray(colours)


def has_no_colour(colours: npt.NDArray[Any]) -> bool:
    """Whether R = G = B in every pixel of an RGB image ``(H, W, 3)``."""
    red = colours[..., 0]
    return bool((red == colours[..., 1]).all() and (red == colours[..., 2]).all())


def with_result(photo: Photo, image: Tensor, scale: int) -> Photo:
    """The photo with restored colours: of its depth, with its transparency ``scale`` times enlarged.

    Args:
        photo: the input.
        image: the result, float ``(1, 3, H, W)``.
        scale: how many times larger than the input it is.
    """
    pixels = to_pixels(image)
    if photo.exact is None:
        return replace(photo, pixels=pixels)
    exact = pixels if photo.exact.dtype == np.uint8 else _rounded(image, photo.exact.dtype)
    alpha = photo.alpha
    if alpha is None:
        return replace(photo, pixels=pixels, exact=exact)
    if scale > 1:
        height, width = pixels.shape[:2]
        alpha = cv2.resize(alpha, (width, height), interpolation=cv2.INTER_CUBIC)
        alpha = alpha.clip(0, 1) if alpha.dtype == np.float32 else alpha
    flat = as_rgb8(np.concatenate([exact, alpha[..., None].astype(exact.dtype, copy=False)], axis=2))
    return replace(photo, pixels=flat, exact=exact, alpha=alpha)


def _extended(colours: npt.NDArray[Any], alpha: npt.NDArray[Any]) -> npt.NDArray[Any]:
    visible = alpha > 0
    if visible.all() or not visible.any():
        return colours
    _, labels = cv2.distanceTransformWithLabels(
        (~visible).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    nearest = np.zeros(int(labels.max()) + 1, dtype=np.int64)
    nearest[labels[visible]] = np.flatnonzero(visible)
    return np.ascontiguousarray(colours.reshape(-1, 3)[nearest[labels]])


def _rounded(image: Tensor, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Float ``(1, 3, H, W)`` clipped, as ``(H, W, 3)`` of 16 bits or float32."""
    result = np.empty((*image.shape[2:], 3), dtype=dtype)
    for top in range(0, image.shape[2], _BAND):
        band = image[0, :, top : top + _BAND].clamp(0, 1).permute(1, 2, 0).cpu().numpy()
        result[top : top + _BAND] = np.rint(band * 65535) if dtype == np.uint16 else band
    return result
