"""Saturation: photographs over- or underexposed, so that a part of their values is white or black.

In a saturated region noise acts in one direction only: it can only darken a white sky. Tools that are trained without
such regions leave them grey.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

MAX_GAIN = 3.0
"""The largest gain; more would make the photograph's own compression visible."""

Curve = npt.NDArray[np.uint8]
"""The new value of each of the 256 values, for all channels: ``(256,)``, not decreasing."""

_VALUES = np.arange(256, dtype=np.float32)


def saturation_curve(patch: npt.NDArray[np.uint8], rng: np.random.Generator) -> Curve:
    """Draw a curve that brightens or darkens until a random share of a patch's values is white, or black.

    It is the same for all channels, so the hue stays where nothing is saturated.

    Args:
        patch: uint8 RGB ``(H, W, 3)``, clean.
        rng: draws the share, from 0 to 1, and whether it is white or black.

    Returns:
        The curve, for :func:`apply_curve`; its gain is at most :data:`MAX_GAIN`.
    """
    share, lighter = rng.random(), bool(rng.integers(2))
    values = (patch if lighter else 255 - patch).ravel()
    rank = int((1 - share) * (values.size - 1))
    reached = max(1.0, float(np.partition(values, rank)[rank]))
    gain = np.float32(min(MAX_GAIN, 255 / reached))
    curve: Curve = np.rint(np.minimum(_VALUES * gain, 255)).astype(np.uint8)
    return curve if lighter else np.asarray(255 - curve[::-1], dtype=np.uint8)


def draw_curve(patch: npt.NDArray[np.uint8], saturation_prob: float, rng: np.random.Generator) -> Curve | None:
    """A :func:`saturation_curve` with the probability ``saturation_prob``, else None; nothing is drawn if that is 0."""
    return saturation_curve(patch, rng) if saturation_prob > 0 and rng.random() < saturation_prob else None


def apply_curve(image: npt.NDArray[np.uint8], curve: Curve | None) -> npt.NDArray[np.uint8]:
    """Apply a curve to an image ``(H, W, 3)``; None leaves it as it is."""
    return image if curve is None else np.asarray(cv2.LUT(image, curve), dtype=np.uint8)
