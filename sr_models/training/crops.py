"""Training pairs for super-resolution: crops of photographs and their twins at a quarter of the size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from restore_env.distortions.protocol import SCALES
from restore_env.images.arrays import Pixels
from restore_env.images.sources import ImageSource
from sr_models.training.blind_distortion import SCALE, Distortion
from tools_zoo.training.trainer import Batch

CONTEXT = 16
"""Pixels of the photograph around a crop that its distortion sees, where there are any."""


class CropSampler:
    """Draws low-resolution crops and their targets from some images of a source, at the protocol's scales.

    Args:
        source: photographs.
        indices: which of them.
        crop_size: pixels of the target, a multiple of 4.
        degrade: makes the low-resolution image.

    Raises:
        ValueError: the crop's size is not a multiple of 4, or no image is as large as a crop.
    """

    def __init__(self, source: ImageSource, indices: Sequence[int], crop_size: int, degrade: Distortion) -> None:
        if crop_size % SCALE:
            raise ValueError(f"a crop of {crop_size} pixels is no multiple of {SCALE}")
        self._source, self._crop_size, self._degrade = source, crop_size, degrade
        self._choices = [(i, s) for s in SCALES for i in indices if min(source.size(i, s)) >= crop_size]
        if not self._choices:
            raise ValueError(f"no image is as large as a crop of {crop_size}x{crop_size} pixels")

    def batch(self, rng: np.random.Generator, count: int) -> Batch:
        """Draw ``count`` inputs and targets, flipped and turned at random."""
        size, small = self._crop_size, self._crop_size // SCALE
        inputs = np.empty((count, small, small, 3), np.uint8)
        targets = np.empty((count, size, size, 3), np.uint8)
        for row in range(count):
            index, scale = self._choices[rng.integers(len(self._choices))]
            image = self._source.pixels(index, scale)
            top = int(rng.integers(image.shape[0] - size + 1))
            left = int(rng.integers(image.shape[1] - size + 1))
            degraded, clean = self.pair(image, top, left, rng)
            turns, flip = int(rng.integers(4)), rng.integers(2)
            for batch, crop in ((inputs, degraded), (targets, clean)):
                turned = np.rot90(crop, turns)
                batch[row] = turned[:, ::-1] if flip else turned
        return inputs, targets

    def pair(self, image: Pixels, top: int, left: int, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
        """The crop of ``image`` at a place, at a quarter of the size and as it is; the distortion sees its context."""
        size = self._crop_size
        rows, columns = (_around(start, size, length) for start, length in zip((top, left), image.shape, strict=False))
        region = np.ascontiguousarray(image[slice(*rows), slice(*columns)])
        degraded = self._degrade(region, rng)
        first_row, first_column = (top - rows[0]) // SCALE, (left - columns[0]) // SCALE
        small = size // SCALE
        clean = image[top : top + size, left : left + size]
        return degraded[first_row : first_row + small, first_column : first_column + small], clean


def _around(start: int, size: int, length: int) -> tuple[int, int]:
    """The crop's first and last pixel moved apart by up to CONTEXT, by multiples of 4, within the image."""
    before = min(CONTEXT, start) // SCALE * SCALE
    after = min(CONTEXT, length - start - size) // SCALE * SCALE
    return start - before, start + size + after
