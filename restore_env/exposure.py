"""Photographs as a camera would have taken them with too much light or too little: parts of them clipped.

What is clipped is no longer in the middle of what noise does to it: in a white sky noise can only darken. A tool that
has seen too little of that leaves such places grey.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

MOST_GAIN = 3.0
"""By what light or its absence is multiplied at most: more would show how the photograph was stored."""

_VALUES = np.arange(256, dtype=np.float32)


def clip_part(
    image: npt.NDArray[np.uint8], window: tuple[int, int, int, int], rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Lighten or darken a photograph until a random share of a window's values is white, or black.

    All channels alike: a sky that is a little yellow stays so where it is not clipped.

    Args:
        image: uint8 RGB ``(H, W, 3)``; it stays as it is.
        window: top, left, height and width.
        rng: draws the share, anything from nothing to all, and whether it is white or black.

    Returns:
        uint8 RGB of the same size; nothing is clipped that a gain of :data:`MOST_GAIN` does not reach.
    """
    top, left, height, width = window
    share, lighter = rng.random(), bool(rng.integers(2))
    part = image[top : top + height, left : left + width]
    values = (part if lighter else 255 - part).ravel()
    rank = int((1 - share) * (values.size - 1))
    reached = max(1.0, float(np.partition(values, rank)[rank]))
    gain = np.float32(min(MOST_GAIN, 255 / reached))
    curve = np.rint(np.minimum(_VALUES * gain, 255)).astype(np.uint8)
    return np.asarray(cv2.LUT(image, curve if lighter else 255 - curve[::-1]))
