"""Grey, transparent and deep photos: what tools get of them, and the photo that a result is written as."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from restore_env.images.arrays import BAND, as_float, of_type
from restore_env.images.decoding import Photo, as_rgb8
from restore_env.images.profiles import ColourSpace, colour_space
from restore_env.images.tiling import to_pixels, to_tensor

LARGE = 2**24
"""Pixels; of a larger image memory holds no second one: tools work in place, and to take one back the others run again
on the input (where tiles chose different tools there is a second one all the same). One of 8 bits is held as float16.
"""


def tool_input(photo: Photo) -> npt.NDArray[np.uint8] | npt.NDArray[np.float32]:
    """The colours that tools restore, RGB ``(H, W, 3)``: uint8, or float32 in [0, 1] of a photo of more than 8 bits.

    Where a photo is wholly transparent they are those of the nearest pixel that is not.
    """
    colours = _visible(photo)
    return np.asarray(colours) if colours.dtype == np.uint8 else as_float(colours)


def working_image(photo: Photo) -> Tensor:
    """What tools restore, ``(1, 3, H, W)``: the colours of :func:`tool_input`, with about sRGB's tones.

    It is float32; of a photo of 8 bits and more than :data:`LARGE` pixels float16, whose error in [0, 1] is at most a
    sixteenth of a grey level of 255.
    """
    height, width = photo.pixels.shape[:2]
    half = height * width > LARGE and photo.colours.dtype == np.uint8
    image = torch.empty(1, 3, height, width, dtype=torch.float16 if half else torch.float32)
    for top, band in _working_bands(photo):
        image[:, :, top : top + BAND] = band
    return image


def mix_in(photo: Photo, image: Tensor, strength: float) -> None:
    """Make an image, in place, the mean of itself and of what :func:`working_image` gives, its share ``strength``."""
    for top, band in _working_bands(photo):
        part = image[:, :, top : top + BAND]
        part.copy_(torch.lerp(band, part.float(), strength))


def _working_bands(photo: Photo) -> Iterator[tuple[int, Tensor]]:
    """What tools get, band by band, each with its first row."""
    colours, space = _visible(photo), _toned(photo)
    for top in range(0, len(colours), BAND):
        band = colours[top : top + BAND]
        if space is not None:
            band = space.with_srgb_tones(as_float(band))
        yield top, to_tensor(band if band.dtype == np.uint8 else as_float(band))


def with_result(photo: Photo, image: Tensor, scale: int) -> Photo:
    """The photo with restored colours: of its depth and space, with its transparency ``scale`` times enlarged.

    Args:
        photo: the input.
        image: the result, float ``(1, 3, H, W)``, of :func:`working_image`'s tones.
        scale: how many times larger than the input it is.
    """
    space = _toned(photo)
    pixels = to_pixels(image) if space is None else _rounded(image, np.dtype(np.uint8), space)
    if photo.exact is None:
        return replace(photo, pixels=pixels)
    exact = pixels if photo.exact.dtype == np.uint8 else _rounded(image, photo.exact.dtype, space)
    alpha = photo.alpha
    if alpha is None:
        return replace(photo, pixels=pixels, exact=exact)
    if scale > 1:
        height, width = pixels.shape[:2]
        alpha = cv2.resize(alpha, (width, height), interpolation=cv2.INTER_CUBIC)
        alpha = alpha.clip(0, 1) if alpha.dtype == np.float32 else alpha
    flat = as_rgb8(np.concatenate([exact, alpha[..., None].astype(exact.dtype, copy=False)], axis=2))
    return replace(photo, pixels=flat, exact=exact, alpha=alpha)


def _toned(photo: Photo) -> ColourSpace | None:
    """The photo's space if tools do not get its numbers, else None."""
    space = colour_space(photo.icc_profile)
    return None if space is None or space.has_srgb_tones else space


def _visible(photo: Photo) -> npt.NDArray[Any]:
    return photo.colours if photo.alpha is None else _extended(photo.colours, photo.alpha)


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


def _rounded(image: Tensor, dtype: np.dtype[Any], space: ColourSpace | None) -> npt.NDArray[Any]:
    """Float ``(1, 3, H, W)``, with the tones of a space if there is one, clipped, as ``(H, W, 3)`` of a type."""
    result = np.empty((*image.shape[2:], 3), dtype=dtype)
    for top in range(0, image.shape[2], BAND):
        band = image[0, :, top : top + BAND].float().permute(1, 2, 0).cpu().numpy()
        result[top : top + BAND] = of_type(band if space is None else space.with_own_tones(band), dtype)
    return result
