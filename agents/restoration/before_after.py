"""Sheets that show a photograph before and after its restoration."""

from __future__ import annotations

import numpy as np

from restore_env.images.decoding import Photo
from restore_env.images.tiling import to_pixels, to_tensor, upscale_bicubic

GAP = 0.02
"""Width of the white strip between the two, as a share of the result's."""


def side_by_side(before: Photo, after: Photo) -> Photo:
    """The input on the left and the result on the right, at the result's size, of 8 bits.

    Args:
        before: the input; where it is smaller it is upscaled bicubically.
        after: the result, a whole number of times as high and wide.
    """
    height, width = after.pixels.shape[:2]
    left = before.pixels
    if left.shape != after.pixels.shape:
        left = to_pixels(upscale_bicubic(to_tensor(left), height // left.shape[0]))
    gap = np.full((height, max(2, round(GAP * width)), 3), 255, dtype=np.uint8)
    sheet = np.concatenate([left, gap, after.pixels], axis=1)
    return Photo(sheet, icc_profile=after.icc_profile, grey=after.grey)
