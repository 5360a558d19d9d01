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

Curve = npt.NDArray[np.uint8]
"""What becomes of each of the 256 values of all channels: ``(256,)``, never falling."""

_VALUES = np.arange(256, dtype=np.float32)


def saturation_curve(patch: npt.NDArray[np.uint8], rng: np.random.Generator) -> Curve:
    """Draw what lightens or darkens a photograph until a random share of a patch's values is white, or black.

    All channels alike: a sky that is a little yellow stays so where it is not clipped.

    Args:
        patch: uint8 RGB ``(H, W, 3)``, clean.
        rng: draws the share, anything from nothing to all, and whether it is white or black.

    Returns:
        The curve, for :func:`apply_curve`; nothing is clipped that a gain of :data:`MOST_GAIN` does not reach.
    """
    share, lighter = rng.random(), bool(rng.integers(2))
    values = (patch if lighter else 255 - patch).ravel()
    rank = int((1 - share) * (values.size - 1))
    reached = max(1.0, float(np.partition(values, rank)[rank]))
    gain = np.float32(min(MOST_GAIN, 255 / reached))
    curve: Curve = np.rint(np.minimum(_VALUES * gain, 255)).astype(np.uint8)
    return curve if lighter else np.asarray(255 - curve[::-1], dtype=np.uint8)


def draw_curve(patch: npt.NDArray[np.uint8], saturation_prob: float, rng: np.random.Generator) -> Curve | None:
    """A :func:`saturation_curve` with the probability ``saturation_prob``, else None; nothing is drawn if that is 0."""
    return saturation_curve(patch, rng) if saturation_prob > 0 and rng.random() < saturation_prob else None


def apply_curve(image: npt.NDArray[np.uint8], curve: Curve | None) -> npt.NDArray[np.uint8]:
    """Put the values of an image ``(H, W, 3)`` through a curve; None leaves them as they are."""
    return image if curve is None else np.asarray(cv2.LUT(image, curve), dtype=np.uint8)
