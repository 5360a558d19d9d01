"""Training pairs of super-resolution: crops of photographs, and smaller distorted versions of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from restore_env.images.arrays import Pixels
from restore_env.images.sources import ImageSource
from restore_env.patches import Crop, CropSampler, PairSampler
from sr_models.training.blind_distortion import SCALE, Distortion

CONTEXT = 16
"""Pixels around a crop that are distorted with it, where the photograph has them."""


class SrPairSampler(PairSampler):
    """Draws low-resolution inputs and their targets.

    Args:
        source: photographs.
        indices: which of them.
        crop_size: pixels of the target, a multiple of 4.
        distortion: makes the low-resolution image.

    Raises:
        ValueError: the crop's size is not a multiple of 4, or no image is as large as a crop.
    """

    def __init__(self, source: ImageSource, indices: Sequence[int], crop_size: int, distortion: Distortion) -> None:
        if crop_size % SCALE:
            raise ValueError(f"a crop of {crop_size} pixels is no multiple of {SCALE}")
        super().__init__(CropSampler(source, crop_size, indices=indices))
        self._distortion = distortion

    def distort(self, crop: Crop, rng: np.random.Generator) -> Pixels:
        """The crop at a quarter of its size, distorted together with its context."""
        size, small = crop.size, crop.size // SCALE
        before = [min(CONTEXT, start) // SCALE * SCALE for start in (crop.top, crop.left)]
        rows, columns = (
            slice(start - margin, start + size + min(CONTEXT, length - start - size) // SCALE * SCALE)
            for start, margin, length in zip((crop.top, crop.left), before, crop.image.shape, strict=False)
        )
        distorted = self._distortion(np.ascontiguousarray(crop.image[rows, columns]), rng)
        top, left = (margin // SCALE for margin in before)
        return distorted[top : top + small, left : left + small]
