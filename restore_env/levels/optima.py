"""Exact optima of level sets: the best chain of each level and the best constant chain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from restore_env.levels.store import LevelSet

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Optima:
    """What chains reach on the levels of a set.

    Chains are as long as the set's depth at most: where an episode may take more steps, it may return more.
    A chain's return is the sum of its rewards; ``stop`` adds nothing.
    """

    returns: Values
    """Of each chain on each level, ``(levels, chains)``: a tool that would exceed the target changes nothing, and an
    episode that ends before the chain does keeps what it had."""
    best_return: Values
    """Of the best chain of each level: ``(levels,)``."""
    best_chain: tuple[tuple[int, ...], ...]
    """The best chain of each level, the shortest if there are several."""
    constant_chain: tuple[int, ...]
    """The chain with the highest mean return, the same for all levels."""
    constant_return: Values
    """Its return on each level: ``(levels,)``."""

    def normalized(self, mean_return: float, levels: npt.NDArray[np.int64] | slice = slice(None)) -> float:
        """A mean return over levels as a score: 0 for the best constant chain, 1 for the best chain of each level.

        Args:
            mean_return: of a policy on these levels.
            levels: which.
        """
        low, high = self.constant_return[levels].mean(), self.best_return[levels].mean()
        return float((mean_return - low) / (high - low)) if high > low else float("nan")


def optima(levels: LevelSet, max_steps: int, cost_weight: float = 0.0, stop_if_worse: bool = False) -> Optima:
    """Find the optima among all chains of at most ``max_steps`` tools that a set stores."""
    tree = levels.tree
    chains = tree.chains
    short = np.array([len(chain) <= max_steps for chain in chains])
    gmacs = tree.gmacs(levels.manifest.patch_size**2, levels.scales, levels.macs_per_pixel)
    upscale = levels.arrays["upscale"]
    returns = np.empty((len(levels), tree.size))
    for factor in np.unique(upscale).tolist():
        here, after = np.flatnonzero(upscale == factor), tree.constant(levels.scales, factor)
        score, psnr = levels.score[here], levels.arrays["psnr"][here]
        gained = score - score[:, :1] - cost_weight * gmacs
        if stop_if_worse:
            ended = psnr < psnr[:, :1]
            for node in range(1, tree.size):
                rows = ended[:, tree.parents[node]]
                gained[rows, node] = gained[rows, tree.parents[node]]
                ended[:, node] |= rows
        returns[here] = gained[:, after]
    returns = returns[:, short]
    best = returns.argmax(axis=1)
    constant = int(returns.mean(axis=0).argmax())
    return Optima(
        returns=returns,
        best_return=returns[np.arange(len(levels)), best],
        best_chain=tuple(chains[number] for number in best.tolist()),
        constant_chain=chains[constant],
        constant_return=returns[:, constant],
    )
