"""What choosing is worth on patches: the best constant chain, found on other patches, and each patch's best chain.

Every chain of at most :data:`DEPTH` tools is run once on each patch, as a level set; all bounds are read from it.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agents.policies.oracles import GreedyOracle
from agents.rollout import draw_starts, play
from restore_env import Task, Toolbox
from restore_env.images.sources import ImagesLike
from restore_env.levels.building import build_levels
from restore_env.levels.optima import Optima, optima
from restore_env.levels.store import LevelSet
from restore_env.resolve import task_sampler, task_toolbox
from restore_env.sampling import EpisodeStart

DEPTH = 2
"""Tools in the chains that are searched, at most."""

Chain = tuple[int, ...]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Patches:
    """Patches, and what every chain of at most :data:`DEPTH` tools makes of them."""

    task: Task
    """Restores them by running its tools."""
    starts: Sequence[EpisodeStart]
    """The patches, one for each level."""
    levels: LevelSet

    @cached_property
    def optima(self) -> Optima:
        """Returns of all chains."""
        return optima(self.levels, DEPTH)

    @property
    def toolbox(self) -> Toolbox:
        """The tools."""
        assert isinstance(self.task.toolbox, Toolbox)
        return self.task.toolbox

    def kinds(self, severity: str) -> list[str]:
        """The kind of each patch's distortion; of a severity that has no kinds, its name."""
        return [str(self.levels.distortion(row).get("kind", severity)) for row in range(len(self.levels))]

    def returns(self, chain: Chain) -> Values:
        """Return of one chain on each patch: ``(patches,)``."""
        return self.optima.returns[:, self.levels.tree.number(chain)]

    @cached_property
    def greedy_chains(self) -> tuple[Chain, ...]:
        """The chains of the greedy oracle with at most :data:`DEPTH` tools."""
        task = Task(levels=self.levels.path, observation=("last_action",))
        chosen = play(GreedyOracle(), task, draw_starts(task, None, 0)).actions
        return tuple(without_stop(chain, self.toolbox.stop) for chain in chosen)


@dataclass(frozen=True)
class Choice:
    """The bounds between which a policy chooses."""

    constant: Chain
    """The chain with the highest mean return on other patches."""
    constant_returns: Values
    """Its return on each patch: ``(patches,)``."""
    best: tuple[Chain, ...]
    """The best chain of each patch."""
    best_returns: Values
    """Their returns: ``(patches,)``."""


@dataclass(frozen=True)
class PatchSets:
    """Patches to measure on, and patches of other photographs to find the constant chain on."""

    measured: Patches
    other: Patches

    def choice(self, removed: Collection[int] = ()) -> Choice:
        """The best constant chain and the best chains of at most :data:`DEPTH` tools.

        Args:
            removed: tools that no chain may have.
        """
        chains = self.measured.levels.tree.chains
        kept = np.array([number for number, chain in enumerate(chains) if not set(chain) & set(removed)])
        returns = self.measured.optima.returns
        constant = int(kept[self.other.optima.returns[:, kept].mean(axis=0).argmax()])
        best = kept[returns[:, kept].argmax(axis=1)]
        return Choice(
            constant=chains[constant],
            constant_returns=returns[:, constant],
            best=tuple(chains[number] for number in best.tolist()),
            best_returns=returns[np.arange(len(returns)), best],
        )


@dataclass(frozen=True)
class Explorer:
    """Draws patches and runs every chain on them, once for each toolbox and distribution of distortions."""

    images: ImagesLike
    """Photographs to measure on."""
    other_images: ImagesLike
    """Others, on which constant chains are found."""
    folder: Path
    """Keeps the level sets; what is there is not computed again."""
    patches: int
    other_patches: int
    seed: int = 0
    _found: dict[str, PatchSets] = field(default_factory=dict)

    def sets(self, toolbox: str | Path, **world: Any) -> PatchSets:
        """The patches of a toolbox.

        Args:
            toolbox: shipped name or folder.
            world: arguments of :class:`restore_env.Task` by name or number: severity, distortion, reward.
        """
        task = Task(toolbox=str(toolbox), upscale=(1,), **world)
        name = _slug(str(toolbox), *(str(value).rpartition(":")[2] for value in world.values()))
        if name not in self._found:
            self._found[name] = PatchSets(
                self._explored(replace(task, images=self.images), f"{name}-measured", self.patches, self.seed),
                self._explored(replace(task, images=self.other_images), f"{name}-other", self.other_patches, self.seed),
            )
        return self._found[name]

    def _explored(self, task: Task, name: str, count: int, seed: int) -> Patches:
        began = time.perf_counter()
        levels = build_levels(task, self.folder / name, count=count, depth=DEPTH, seed=seed, last_observed=False)
        print(f"{name}: {count} patches, {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        task = replace(task, toolbox=task_toolbox(task))
        starts = list(task_sampler(task).starts(levels.arrays["seed"].tolist()))
        return Patches(task, starts, levels)


def without_stop(actions: Sequence[int], stop: int) -> Chain:
    """The tools of a chain of actions."""
    return tuple(action for action in actions if action != stop)


def _slug(*words: str) -> str:
    """Words as the name of a folder."""
    return "-".join(re.sub(r"[^\w+.]+", "_", word) for word in words)
