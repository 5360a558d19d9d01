"""Which tool each tile of an image gets, by the gains or the votes of the tiles around it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from agents.restoration import LEAST_GAIN
from restore_env.episodes.transition import Actions

LEAST_BENEFIT, LEAST_FURTHER_BENEFIT = 0.25, 0.1
"""dB, predicted mean of all tiles: what dividing them must gain at least, and later dividing one of the parts."""
LEAST_BENEFIT_OF_UNTOUCHED = 0.5
"""dB, the same for dividing an image that would be left as it is: good images are often mistaken in a part."""
WORTH = 0.15
"""dB, predicted mean of a region's tiles: what a tool must add to those that are chosen from at a step."""
DISAGREEMENT = 0.3
"""dB: price of a tile and its neighbour of another action; half of that across a corner."""
_SWEEPS = 20  # at most; labels settle in a few

Floats = npt.NDArray[np.floating[Any]]


def mean_gains(values: Floats) -> npt.NDArray[np.float64]:
    """Mean predicted gain of each action over the tiles ``(tiles, actions)``: ``(actions,)``."""
    means: npt.NDArray[np.float64] = values.clip(min=LEAST_GAIN).mean(axis=0, dtype=np.float64)
    return means


def best_action(values: Floats, mask: npt.NDArray[np.int8], caution: float) -> int:
    """The allowed action with the highest mean predicted gain, or ``stop``, the last one, if that is too little.

    Args:
        values: predicted gains ``(tiles, actions)``, dB.
        mask: allowed actions ``(actions,)``.
        caution: smallest predicted gain for which a tool is applied.
    """
    means = np.where(mask, mean_gains(values), -np.inf)
    action, stop = int(means.argmax()), len(mask) - 1
    return stop if mask[stop] and means[action] < caution else action


def choose_tools(
    values: Floats,
    mask: npt.NDArray[np.int8],
    chains: npt.NDArray[np.int64],
    grid: tuple[int, int],
    caution: float,
    of_parts: npt.NDArray[np.int8] | None = None,
) -> Actions:
    """Choose each tile's action by its own and its neighbours' predicted gains.

    The tiles that had the same chain so far are a region. It gets the action of the highest mean gain, unless
    :data:`LEAST_BENEFIT` is predicted for dividing it (:data:`LEAST_FURTHER_BENEFIT` if there are several
    regions, :data:`LEAST_BENEFIT_OF_UNTOUCHED` if there is one and that action is ``stop``). It is divided in three
    steps: a few tools are selected, each :data:`WORTH` it; each tile gets that of them with the highest gain nearby,
    less :data:`DISAGREEMENT` for each neighbour with another one (a Potts model, by iterated conditional modes: Besag,
    1986); and the tiles with the same action decide together, as a region does.

    Args:
        values: predicted gains ``(tiles, actions)``, dB; the last action is ``stop``.
        mask: allowed actions ``(actions,)``.
        chains: a number for what was done to each tile so far ``(tiles,)``, negative if it has stopped.
        grid: rows and columns of the tiles.
        caution: smallest predicted gain for which a tool is applied.
        of_parts: actions that parts of a region may get ``(actions,)``; None: all that are allowed.

    Returns:
        ``(tiles,)``.
    """
    stop, tiles, allowed = len(mask) - 1, len(values), np.flatnonzero(mask if of_parts is None else of_parts)
    gains, nearby = np.full(values.shape, -np.inf), np.full(values.shape, -np.inf)
    gains[:, allowed] = values[:, allowed].clip(min=LEAST_GAIN)
    nearby[:, allowed] = means_nearby(gains[:, allowed], chains, grid)
    actions = np.full(tiles, stop)
    alike = bool((chains == chains[0]).all())
    for chain in np.unique(chains[chains >= 0]):
        region = chains == chain
        first = actions[region] = best_action(values[region], mask, caution)
        for scores in (gains, nearby):
            scores[region, stop] = max(caution, float(gains[region, stop].mean())) if mask[stop] else -np.inf
        selected = np.array(_select(nearby[region], first, stop))
        labels = _divide(nearby[:, selected], region, grid)
        divided = np.full(tiles, first)
        for label in np.unique(labels[region]):
            part = region & (labels == label)
            divided[part] = gains[part].mean(0).argmax()
        undivided = gains[region, first] if first in allowed else values[region, first].clip(min=LEAST_GAIN)
        more = np.take_along_axis(gains, divided[:, None], 1)[region, 0] - undivided
        least = (LEAST_BENEFIT_OF_UNTOUCHED if first == stop else LEAST_BENEFIT) if alike else LEAST_FURTHER_BENEFIT
        if more.sum() / tiles >= least:
            actions[region] = divided[region]
    return actions


def choose_by_votes(
    chosen: Actions, mask: npt.NDArray[np.int8], chains: npt.NDArray[np.int64], grid: tuple[int, int]
) -> Actions:
    """Choose the action that most of a tile's neighbours and itself chose, the lower one if there are two.

    Args:
        chosen: ``(tiles,)``.
        mask: allowed actions ``(actions,)``; the last one is ``stop``.
        chains: as for :func:`choose_tools`.
        grid: rows and columns of the tiles.

    Returns:
        ``(tiles,)``.
    """
    votes = means_nearby(np.eye(len(mask))[chosen], chains, grid)
    return np.where(chains >= 0, np.where(mask, votes.round(6), -1).argmax(1), len(mask) - 1)


def means_nearby(scores: Floats, chains: npt.NDArray[np.int64], grid: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Scores ``(tiles, actions)``, each the mean of a tile and those of its eight neighbours with the same chain."""
    own = chains.reshape(grid)
    others = np.pad(own, 1, constant_values=np.iinfo(np.int64).min)
    padded = np.pad(scores.reshape(*grid, -1).astype(np.float64), ((1, 1), (1, 1), (0, 0)))
    sums, counts = np.zeros((*grid, scores.shape[1])), np.zeros((*grid, 1))
    for window in itertools.starmap(_window(grid), itertools.product(range(3), range(3))):
        alike = (others[window] == own)[..., None]
        sums += alike * padded[window]
        counts += alike
    means: npt.NDArray[np.float64] = (sums / counts).reshape(scores.shape)
    return means


def _window(grid: tuple[int, int]) -> Any:
    """Of a grid that is padded by 1, the window whose upper left is a given place."""
    return lambda down, across: (slice(down, down + grid[0]), slice(across, across + grid[1]))


def _select(gains: npt.NDArray[np.float64], first: int, stop: int) -> list[int]:
    """Select actions of which the tiles choose: ``first``, ``stop``, and those that are :data:`WORTH` it.

    Args:
        gains: ``(tiles, actions)``, dB.
        first: the best for all tiles together; left out if the others make it needless.
        stop: always selected.
    """
    selected = sorted({first, stop})

    def reached(actions: Sequence[int]) -> npt.NDArray[np.float64]:
        highest: npt.NDArray[np.float64] = gains[:, actions].max(1)
        return highest

    while True:
        more = np.maximum(gains - reached(selected)[:, None], 0).mean(0)
        if more.max() < WORTH:
            break
        selected.append(int(more.argmax()))
    while tools := [action for action in selected if action != stop]:
        losses = [(reached(selected) - reached([each for each in selected if each != tool])).mean() for tool in tools]
        if min(losses) >= WORTH:
            break
        selected.remove(tools[int(np.argmin(losses))])
    return sorted(selected)


def _divide(scores: npt.NDArray[np.float64], region: npt.NDArray[np.bool_], grid: tuple[int, int]) -> Actions:
    """Label each tile of a region so that scores are high and few neighbours differ.

    Every second tile of every second row is relabelled at a time, since none of them is another's neighbour.

    Args:
        scores: of the labels ``(tiles, labels)``, dB.
        region: tiles ``(tiles,)``; the others are no neighbours.
        grid: rows and columns of the tiles.

    Returns:
        ``(tiles,)``; what tiles outside of the region get means nothing.
    """
    count = scores.shape[1]
    labels: Actions = scores.argmax(1).reshape(grid)
    inside, window = region.reshape(grid), _window(grid)
    around = [place for place in itertools.product(range(3), range(3)) if place != (1, 1)]
    for _ in range(_SWEEPS):
        before = labels.copy()
        for turn in itertools.product(range(2), range(2)):
            shown = np.pad(np.eye(count)[labels] * inside[..., None], ((1, 1), (1, 1), (0, 0)))
            worth = scores.reshape(*grid, count).copy()
            for down, across in around:
                worth += (DISAGREEMENT if 1 in (down, across) else DISAGREEMENT / 2) * shown[window(down, across)]
            places = (slice(turn[0], None, 2), slice(turn[1], None, 2))
            labels[places] = worth[places].argmax(-1)
        if (labels == before).all():
            break
    return labels.ravel()
