"""A square patch of a photograph, before it is distorted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from restore_env.distortions.mixed import Distortion
from restore_env.distortions.saturation import Curve, apply_curve
from restore_env.images.arrays import Pixels


@dataclass(frozen=True)
class Crop:
    """Where a patch is cut, before it is distorted."""

    image: Pixels
    """The whole photograph, at ``scale``."""
    identity: str
    scale: float
    factor: int
    """How many times higher and wider the target is than the distorted patch."""
    size: int
    """Pixels of the distorted patch; ``top`` and ``left`` are in the same unit."""
    top: int
    left: int
    curve: Curve | None = None
    """The saturation curve of the photograph, if any."""
    index: int = -1
    """The photograph's number in the source."""

    def target(self) -> Pixels:
        """The clean patch."""
        top, left, size = (self.factor * length for length in (self.top, self.left, self.size))
        return apply_curve(cut(self.image, top, left, size), self.curve)

    def distorted(self, distortion: Distortion, rng: np.random.Generator) -> Pixels:
        """The patch, distorted on the host."""
        window = (self.top, self.left, self.size, self.size)
        return distortion.patch(self.image, window, rng, self.factor, self.curve)


def cut(image: Pixels, top: int, left: int, size: int) -> Pixels:
    """A square of an image, contiguous."""
    return np.ascontiguousarray(image[top : top + size, left : left + size])
