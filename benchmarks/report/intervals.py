"""Means with 95 % confidence intervals, by bootstrap over photographs.

Patches of one photograph are alike, so photographs are resampled: an interval is about other photographs of the kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

DRAWS = 2000
LEVELS = (2.5, 97.5)
"""Percentiles of the bootstrap distribution between which an interval lies."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean and the bounds of its 95 % confidence interval."""

    mean: float
    low: float
    high: float


def estimate(*parts: tuple[Values, Sequence[str]], seed: int = 0) -> Estimate:
    """Estimate a mean: of one set of values, or of several sets' means, each set counting the same.

    For a paired difference give the differences.

    Args:
        parts: values ``(N,)``, and the photograph that each belongs to. Where all belong to one (or none are named),
            single values are resampled instead.
        seed: of the draws; the same photographs give the same draws.

    Raises:
        ValueError: no values, or a number of photographs that is not that of the values.
    """
    if not parts or not all(len(values) for values, _ in parts):
        raise ValueError("there is no mean of no values")
    named = [images or [str(row) for row in range(len(values))] for values, images in parts]
    if len({image for images in named for image in images}) == 1:
        named = [[str(row) for row in range(len(values))] for values, _ in parts]
    photographs, indices = np.unique(np.concatenate([np.array(images) for images in named]), return_inverse=True)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(photographs), np.full(len(photographs), 1 / len(photographs)), DRAWS).astype(float)
    means = np.zeros(DRAWS)
    first = 0
    for values, images in zip((part[0] for part in parts), named, strict=True):
        if len(values) != len(images):
            raise ValueError(f"{len(values)} values cannot belong to {len(images)} photographs")
        own = indices[first : first + len(values)]
        first += len(values)
        sums, counts = (np.bincount(own, weights, len(photographs)) for weights in (values, np.ones(len(values))))
        with np.errstate(invalid="ignore"):  # none of a set's photographs among those drawn
            means += (drawn @ sums) / (drawn @ counts) / len(parts)
    low, high = np.nanpercentile(means, LEVELS)
    return Estimate(float(np.mean([values.mean() for values, _ in parts])), float(low), float(high))
