"""Means with 95 % confidence intervals, by bootstrap over photographs, or over trainings.

Patches of one photograph are alike, so photographs are resampled: an interval is about other photographs of the kind.
Where trainings are resampled, it is about other seeds.
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

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


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
    drawn, members = _resampled(parts, seed)
    means = np.zeros(DRAWS)
    for (values, _), own in zip(parts, members, strict=True):
        means += _ratios(drawn, own, values, np.ones(len(values))) / len(parts)
    return _interval(float(np.mean([values.mean() for values, _ in parts])), means)


def ratio(values: Values, of: Values, images: Sequence[str], seed: int = 0) -> Estimate:
    """Estimate the sum of ``values`` divided by the sum of ``of``, both ``(N,)``; else as :func:`estimate`."""
    drawn, (own,) = _resampled([(values, images)], seed)
    return _interval(float(values.sum() / of.sum()), _ratios(drawn, own, values, of))


def interquartile_mean(scores: Values, seed: int = 0) -> Estimate:
    """Estimate the interquartile mean of scores: the mean of what is left without the lowest and the highest quarter.

    Runs are resampled within each task (stratified bootstrap). Source: Agarwal et al., "Deep Reinforcement Learning at
    the Edge of the Statistical Precipice", NeurIPS 2021, sections 4.1 and 4.3.

    Args:
        scores: ``(runs,)`` of one task, or ``(runs, tasks)``.
        seed: of the draws.

    Raises:
        ValueError: no scores.
    """
    if not scores.size:
        raise ValueError("there is no mean of no scores")
    columns = scores.reshape(len(scores), -1)
    rows = np.random.default_rng(seed).integers(len(columns), size=(DRAWS, *columns.shape))
    drawn = columns[rows, np.arange(columns.shape[1])]
    return _interval(float(_middle(columns[None])[0]), _middle(drawn))


def _middle(scores: Values) -> Values:
    """The mean of each row's scores without a quarter of them, rounded down, at both ends: ``(rows,)``."""
    ordered = np.sort(scores.reshape(len(scores), -1), axis=1)
    cut = ordered.shape[1] // 4
    means: Values = ordered[:, cut : ordered.shape[1] - cut].mean(axis=1)
    return means


def _resampled(parts: Sequence[tuple[Values, Sequence[str]]], seed: int) -> tuple[Values, list[npt.NDArray[np.int64]]]:
    """How often each draw has each photograph, ``(DRAWS, photographs)``, and the photograph of each value, by part."""
    named = [images or [str(row) for row in range(len(values))] for values, images in parts]
    if len({image for images in named for image in images}) == 1:
        named = [[str(row) for row in range(len(values))] for values, _ in parts]
    for (values, _), images in zip(parts, named, strict=True):
        if len(values) != len(images):
            raise ValueError(f"{len(values)} values cannot belong to {len(images)} photographs")
    photographs, indices = np.unique(np.concatenate([np.array(images) for images in named]), return_inverse=True)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(photographs), np.full(len(photographs), 1 / len(photographs)), DRAWS).astype(float)
    return drawn, np.split(indices, np.cumsum([len(images) for images in named])[:-1])


def _ratios(drawn: Values, own: npt.NDArray[np.int64], values: Values, of: Values) -> Values:
    """The ratio of sums in each draw, NaN where none of a set's photographs is drawn: ``(DRAWS,)``."""
    upper, lower = (drawn @ np.bincount(own, weights, drawn.shape[1]) for weights in (values, of))
    return np.asarray(np.divide(upper, lower, out=np.full(len(drawn), np.nan), where=lower > 1e-9))


def _interval(mean: float, means: Values) -> Estimate:
    low, high = np.nanpercentile(means, LEVELS)
    return Estimate(mean, float(low), float(high))
