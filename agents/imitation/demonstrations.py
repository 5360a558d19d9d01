"""Demonstrations: the states of a level set with the gain of every tool, for imitation learning."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from restore_env.levels.store import Array, LevelError, LevelSet

Values = npt.NDArray[np.float32]
SAMPLING_TEMPERATURE = 1.0
"""dB: how much less often a tool is sampled that gains less."""
SPREAD = 0.4
"""Standard deviation of PSNR rewards between tools, dB; other rewards are scaled to it."""


@dataclass(frozen=True)
class Demonstrations:
    """The first states of the levels of a set, and those after each tool: what is observed, and what tools gain there.

    With ``A`` tools there are ``1 + A`` states a level, of a set of depth 1 the first alone; and, if the set goes
    beyond its depth, the state after the best chain.

    Args:
        levels: a level set.
        rows: which of its levels.
        cost_weight: price of computation, reward per GMAC.
    """

    levels: LevelSet
    rows: npt.NDArray[np.int64]
    cost_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.levels.tree.depth not in (1, 2):
            raise LevelError(f"{self.levels.path}: has depth {self.levels.tree.depth}; imitation takes depth 1 or 2")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def states(self) -> int:
        """Number of states of a level."""
        return self.levels.tree.inner

    @cached_property
    def gmacs(self) -> npt.NDArray[np.float64]:
        """Computation of each chain: ``(chains,)``."""
        size = self.levels.manifest.patch_size
        return self.levels.tree.gmacs(size**2, self.levels.scales, self.levels.macs_per_pixel)

    @cached_property
    def gains(self) -> Values:
        """What each tool gains in each state, in the reward's unit: ``(levels, states, A)``, NaN where forbidden."""
        n_tools = self.levels.tree.n_tools
        score = self.levels.score[self.rows] - self.cost_weight * self.gmacs
        after = score[:, 1 : 1 + self.states * n_tools].reshape(len(self), self.states, n_tools)
        gains: Values = np.asarray(after - score[:, : self.states, None], dtype=np.float32)
        return gains

    @cached_property
    def values(self) -> Values:
        """What each tool gains together with the best that may follow in the set: ``(levels, states, A)``."""
        values: Values = self.gains.copy()
        if self.states > 1:
            following = np.where(np.isnan(self.gains[:, 1:]), 0, self.gains[:, 1:]).max(axis=2)
            values[:, 0] += np.maximum(following, 0)
        return values

    @property
    def beyond(self) -> bool:
        """Whether the state after the best chain is known."""
        return bool(self.levels.manifest.beyond)

    @cached_property
    def beyond_gains(self) -> Values:
        """What each tool gains after the best chain: ``(levels, A)``, NaN where forbidden."""
        levels, chains = self.levels, self.best_chains
        pixels = (levels.manifest.patch_size * levels.tree.upscaling(levels.scales)[chains]) ** 2
        gmacs = pixels[:, None] * levels.macs_per_pixel / 1e9
        return np.asarray(levels.arrays["beyond_gain"][self.rows] - self.cost_weight * gmacs, dtype=np.float32)

    @cached_property
    def best_chains(self) -> npt.NDArray[np.int64]:
        """Number of the best chain of full length of each level: ``(levels,)``."""
        return np.asarray(self.levels.arrays["beyond_chain"][self.rows])

    def tools_after_start(
        self, chosen: npt.NDArray[np.int64], count: int, rng: np.random.Generator | None
    ) -> npt.NDArray[np.int64]:
        """Tools of levels, ``(n, K)``: all of them, or with ``rng`` at most ``count``, those that gain more rather.

        That which begins the best chain of full length is one of them. None in a set of depth 1.
        """
        n_tools = self.states - 1
        if rng is None or n_tools <= count:
            return np.tile(np.arange(n_tools), (len(chosen), 1))
        keys = np.nan_to_num(self.values[chosen, 0] / self.unit, nan=-np.inf) / SAMPLING_TEMPERATURE
        keys += rng.gumbel(size=keys.shape)
        if self.beyond:
            keys[np.arange(len(chosen)), (self.best_chains[chosen] - 1) // n_tools - 1] = np.inf
        return np.argsort(-keys, axis=1)[:, :count]

    def observed(self, name: str, chosen: npt.NDArray[np.int64], tools: npt.NDArray[np.int64]) -> Array:
        """What is observed in states of some of the levels: ``(n, 1 + K, ...)``, one more with :attr:`beyond`.

        Args:
            name: "image" or "spectrum".
            chosen: which of the levels, by their place among these.
            tools: ``(n, K)``: the state at the start is observed, and those after these tools.
        """
        arrays, rows = self.levels.arrays, self.rows[chosen]
        if name not in arrays:
            raise LevelError(f"{self.levels.path}: holds no {name}: build the set with --pixels")
        states = np.pad(1 + tools, ((0, 0), (1, 0)))
        observed = np.asarray(arrays[name][rows[:, None], states])
        if not self.beyond:
            return observed
        return np.concatenate([observed, arrays[f"beyond_{name}"][rows, None]], axis=1)

    @property
    def unit(self) -> float:
        """How much of the reward counts as 1 dB: by how much, on average, tools differ."""
        if self.levels.manifest.reward == "psnr":
            return 1.0
        known = self.gains[~np.isnan(self.gains).all(axis=2)]
        return max(float(np.nanstd(known, axis=1).mean()), 1e-12) / SPREAD


def split_by_photograph(
    levels: LevelSet, every: int, cost_weight: float = 0.0
) -> tuple[Demonstrations, Demonstrations]:
    """The levels to train on, and those of one of ``every`` photographs, for validation; both are all of a few.

    A photograph's name decides, so that it is held out from every set.
    """
    names = [zlib.crc32(os.fsencode(Path(name).name)) for name in levels.manifest.photographs]
    held_out = np.array(names, dtype=np.int64)[levels.arrays["photograph"]] % every == 0
    if held_out.all() or not held_out.any():
        held_out = np.ones(len(levels), dtype=bool)
        return (Demonstrations(levels, np.flatnonzero(held_out), cost_weight),) * 2
    train, kept = (np.flatnonzero(rows) for rows in (~held_out, held_out))
    return Demonstrations(levels, train, cost_weight), Demonstrations(levels, kept, cost_weight)


def check_alike(sets: Sequence[LevelSet]) -> None:
    """Raise :class:`LevelError` if sets differ in tools, depth, reward or patch size."""
    for other in sets[1:]:
        for field in ("tools", "depth", "reward", "patch_size", "fingerprint"):
            first, second = (getattr(each.manifest, field) for each in (sets[0], other))
            if first != second:
                raise LevelError(f"{other.path}: has {field} {second}, {sets[0].path} has {first}")
