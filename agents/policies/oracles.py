"""Oracles: policies that see the target, with the same ``predict``. They bound what an agent can reach.

An oracle tries tools on the very episodes that it plays, so it must be shown them: :func:`agents.rollout.play` does so
by itself, and ``GreedyOracle.of(env)`` binds one to an environment of one's own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from restore_env.episodes.batch import EpisodeBatch
from restore_env.episodes.image_batch import Slots
from restore_env.sampling import EpisodeStart

Actions = npt.NDArray[np.int64]
AnOracle = TypeVar("AnOracle", bound="Oracle")

_IMAGES_CPU, _IMAGES_GPU = 36, 1152
"""Images that a tool gets at a time in a search: more of them do not stay in a CPU's cache."""


class Oracle(ABC):
    """What oracles share: the episodes that they play, and ``predict``."""

    def __init__(self) -> None:
        self._episodes: EpisodeBatch | None = None

    @classmethod
    def of(cls: type[AnOracle], env: Any, **arguments: Any) -> AnOracle:
        """An oracle that plays an environment, the single, the vector, or Stable-Baselines3's one, wrapped or not.

        Args:
            env: the environment.
            arguments: the oracle's own.
        """
        oracle = cls(**arguments)
        base = env.unwrapped
        oracle.bind(getattr(base, "vector_env", base).episodes)
        return oracle

    def bind(self, episodes: EpisodeBatch) -> None:
        """Play these episodes from now on: row ``i`` of an observation is slot ``i``."""
        self._episodes = episodes

    def predict(
        self,
        observation: Any,
        state: Any | None = None,
        episode_start: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = True,
    ) -> tuple[Actions, None]:
        """Choose an action for each slot, ``stop`` where the episode is over; one of a single environment alone.

        Raises:
            ValueError: it attends to no episodes, or to another number of them.
        """
        n = np.size(observation["last_action"])
        if self._episodes is None or self._episodes.n != n:
            attended = "none" if self._episodes is None else str(self._episodes.n)
            raise ValueError(f"an oracle must see the episodes that it plays: {n} of them, it attends to {attended}")
        actions = np.full(n, self._episodes.toolbox.stop, dtype=np.int64)
        slots = np.flatnonzero(~self._episodes.over)
        if len(slots):
            actions[slots] = self.choose(self._episodes, slots)
        return actions.reshape(np.shape(observation["last_action"])), None

    @abstractmethod
    def choose(self, episodes: EpisodeBatch, slots: Slots) -> Actions:
        """The actions ``(len(slots),)`` for ``slots`` whose episodes go on."""


class GreedyOracle(Oracle):
    """Tries every tool and takes the one that pays most now; stops when none pays.

    Args:
        explore: share of the steps at which any allowed tool, drawn at random, takes the best one's place.
        stops: stop when no tool pays; otherwise take the least bad one.
        rng: draws what is explored.
    """

    def __init__(self, *, explore: float = 0.0, stops: bool = True, rng: np.random.Generator | None = None) -> None:
        super().__init__()
        self.explore, self.stops = explore, stops
        self._rng = np.random.default_rng(0) if rng is None else rng
        self.rewards: npt.NDArray[np.float64] = np.zeros((0, 0))
        """What each action would have paid at the latest choice: ``(slots that went on, n_actions)``."""

    def choose(self, episodes: EpisodeBatch, slots: Slots) -> Actions:
        """Try every tool."""
        self.rewards = rewards = episodes.one_step_rewards(slots)
        explored = np.zeros((len(slots), 1), dtype=np.bool_)
        preferred = rewards
        if self.explore:
            explored = self._rng.random(explored.shape) < self.explore
            preferred = np.where(explored, self._rng.random(rewards.shape), rewards)
        allowed = episodes.action_mask()[slots].astype(bool)
        tools: Actions = np.where(allowed, preferred, -np.inf)[:, :-1].argmax(axis=1)
        if not self.stops:
            return tools
        pays = rewards[np.arange(len(slots)), tools] > 0
        return np.where(explored[:, 0] | pays, tools, episodes.toolbox.stop)


@dataclass(frozen=True)
class _Plan:
    start: EpisodeStart
    chain: tuple[int, ...]


class ExhaustiveOracle(Oracle):
    """Tries every chain of up to ``depth`` tools, the empty one too, and plays the best one.

    Chains share their prefixes: with 12 tools and depth 3 that takes 12 + 144 + 1,728 tool runs a patch, in memory for
    a few dozen patches.

    Args:
        depth: longest chain.
        precision: "bf16" tries the tools in half precision, which takes half the time where the processor has it; the
            chain that is chosen is played in full precision all the same.
    """

    def __init__(self, depth: int = 3, *, precision: Literal["fp32", "bf16"] = "fp32") -> None:
        super().__init__()
        self.depth, self.precision = depth, precision
        self._plans: dict[int, _Plan] = {}

    def bind(self, episodes: EpisodeBatch) -> None:
        """Play these episodes from now on; earlier plans are forgotten."""
        super().bind(episodes)
        self._plans = {}

    def choose(self, episodes: EpisodeBatch, slots: Slots) -> Actions:
        """Follow the plan; plan first where an episode is new, or did not go as planned."""
        new = np.array([slot for slot in slots if not self._on_plan(episodes, slot)], dtype=np.int64)
        left = np.array([episodes.task.max_steps - len(episodes.actions[slot]) for slot in new])
        for steps in np.unique(left):
            alike = new[left == steps]
            with torch.autocast(episodes.toolbox.device.type, torch.bfloat16, self.precision == "bf16"):
                _, chains = search(episodes, alike, min(self.depth, int(steps)))
            for slot, chain in zip(alike, chains, strict=True):
                self._plans[slot] = _Plan(episodes.start(slot), (*episodes.actions[slot], *chain))
        planned = [(*self._plans[slot].chain, episodes.toolbox.stop) for slot in slots]
        return np.array([chain[len(episodes.actions[slot])] for slot, chain in zip(slots, planned, strict=True)])

    def _on_plan(self, episodes: EpisodeBatch, slot: int) -> bool:
        plan, done = self._plans.get(slot), tuple(episodes.actions[slot])
        return plan is not None and plan.start is episodes.starts[slot] and plan.chain[: len(done)] == done


def search(episodes: EpisodeBatch, slots: Slots, depth: int) -> tuple[npt.NDArray[np.float64], list[tuple[int, ...]]]:
    """Find the best that up to ``depth`` more tools can do for each of the ``slots``; nothing changes.

    Returns:
        The highest sum of rewards ``(len(slots),)``, 0 or more, and the tools that give it (none for 0).
    """
    tools = len(episodes.toolbox)
    size = max(1, (_IMAGES_CPU if episodes.toolbox.device.type == "cpu" else _IMAGES_GPU) // tools)
    if depth > 1 and len(slots) > size:
        parts = [search(episodes, slots[first : first + size], depth) for first in range(0, len(slots), size)]
        return np.concatenate([part[0] for part in parts]), [chain for part in parts for chain in part[1]]
    allowed = episodes.action_mask()[slots, :-1].astype(bool)
    if depth == 1:
        totals = episodes.one_step_rewards(slots)[:, :-1]
        rests: list[tuple[int, ...]] = [()] * totals.size
    else:
        branches = episodes.fork(np.repeat(slots, tools))
        every = np.arange(branches.n)
        sums = branches.step(every, np.tile(np.arange(tools), len(slots)))
        rests = [()] * branches.n
        going_on = every[~branches.over & allowed.ravel()]
        if len(going_on):
            later, chains = search(branches, going_on, depth - 1)
            sums[going_on] += later
            for row, chain in zip(going_on, chains, strict=True):
                rests[row] = chain
        totals = sums.reshape(len(slots), tools)
    totals = np.where(allowed, totals, -np.inf)
    best = totals.argmax(axis=1)
    values = np.maximum(totals[np.arange(len(slots)), best], 0)
    found = [
        (int(tool), *rests[row * tools + tool]) if value > 0 else ()
        for row, (tool, value) in enumerate(zip(best, values, strict=True))
    ]
    return values, found
