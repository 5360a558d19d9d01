"""Oracles: policies that see the target, with the same ``predict``. They bound what an agent can reach.

An oracle tries tools on the episodes that it plays, so it has to be bound to them: :func:`agents.rollout.play` does
that, and ``GreedyOracle.of(env)`` makes an oracle for an environment.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from restore_env.episodes.batch import EpisodeBatch
from restore_env.episodes.image_batch import Slots
from restore_env.episodes.transition import Actions
from restore_env.sampling import EpisodeStart

AnOracle = TypeVar("AnOracle", bound="Oracle")

_IMAGES_CPU, _IMAGES_GPU = 36, 1152
"""Images in a batch of a search; on a CPU as many as fit into its cache."""


class Oracle(ABC):
    """Base class of policies that run tools on the episodes themselves to choose an action."""

    observation_keys = ("last_action",)

    def __init__(self) -> None:
        self._episodes: EpisodeBatch | None = None

    @classmethod
    def of(cls: type[AnOracle], env: Any, **arguments: Any) -> AnOracle:
        """Make an oracle for an environment: single, vector, or Stable-Baselines3's, wrapped or not.

        Args:
            env: the environment.
            arguments: of the oracle's constructor.
        """
        oracle = cls(**arguments)
        base = env.unwrapped
        oracle.bind(getattr(base, "vector_env", base).episodes)
        return oracle

    def bind(self, episodes: EpisodeBatch) -> None:
        """Bind to a batch of episodes: row ``i`` of an observation is slot ``i``."""
        self._episodes = episodes

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[Actions, None]:
        """Choose an action for each slot, ``stop`` where the episode is over.

        Raises:
            ValueError: it is bound to no episodes, or to another number of them.
        """
        n = np.size(observation["last_action"])
        if self._episodes is None or self._episodes.n != n:
            bound = "none" if self._episodes is None else str(self._episodes.n)
            raise ValueError(f"an oracle must be bound to the {n} episodes that it plays; it is bound to {bound}")
        actions = np.full(n, self._episodes.toolbox.stop, dtype=np.int64)
        slots = np.flatnonzero(~self._episodes.over)
        if len(slots):
            actions[slots] = self.choose(self._episodes, slots)
        return actions.reshape(np.shape(observation["last_action"])), None

    @abstractmethod
    def choose(self, episodes: EpisodeBatch, slots: Slots) -> Actions:
        """The actions ``(len(slots),)`` for ``slots`` whose episodes are not over."""


class GreedyOracle(Oracle):
    """Tries every tool and takes the one with the highest reward; stops when no reward is positive.

    Args:
        explore: probability of a random allowed tool instead of the best one.
        stops: stop when no tool has a positive reward; otherwise take the best one anyway.
        rng: for exploration.
    """

    def __init__(self, *, explore: float = 0.0, stops: bool = True, rng: np.random.Generator | None = None) -> None:
        super().__init__()
        self.explore, self.stops = explore, stops
        self._rng = np.random.default_rng(0) if rng is None else rng
        self.rewards: npt.NDArray[np.float64] = np.zeros((0, 0))
        """Rewards of all actions at the latest choice: ``(slots, n_actions)``."""

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
        positive = rewards[np.arange(len(slots)), tools] > 0
        return np.where(explored[:, 0] | positive, tools, episodes.toolbox.stop)


class ExhaustiveOracle(Oracle):
    """Tries every chain of up to ``depth`` tools, also the empty one, and plays the best one.

    Chains share prefixes: 12 tools and depth 3 take 12 + 144 + 1,728 tool runs per patch.

    Args:
        depth: longest chain.
        precision: "bf16" searches in half precision, in half of the time where the processor supports it; the chosen
            chain is played in full precision.
    """

    def __init__(self, depth: int = 3, *, precision: Literal["fp32", "bf16"] = "fp32") -> None:
        super().__init__()
        self.depth, self.precision = depth, precision
        self._plans: dict[int, tuple[EpisodeStart, tuple[int, ...]]] = {}

    def bind(self, episodes: EpisodeBatch) -> None:
        """Bind to a batch of episodes and remove earlier plans."""
        super().bind(episodes)
        self._plans = {}

    def choose(self, episodes: EpisodeBatch, slots: Slots) -> Actions:
        """Follow the plan; search first where an episode is new or left its plan."""
        new = np.array([slot for slot in slots if not self._on_plan(episodes, slot)], dtype=np.int64)
        left = np.array([episodes.task.max_steps - len(episodes.actions[slot]) for slot in new])
        for steps in np.unique(left):
            alike = new[left == steps]
            with torch.autocast(episodes.toolbox.device.type, torch.bfloat16, self.precision == "bf16"):
                _, chains = search(episodes, alike, min(self.depth, int(steps)))
            for slot, chain in zip(alike, chains, strict=True):
                plan = (*episodes.actions[slot], *chain, episodes.toolbox.stop)
                self._plans[slot] = (episodes.start(slot), plan)
        return np.array([self._plans[slot][1][len(episodes.actions[slot])] for slot in slots])

    def _on_plan(self, episodes: EpisodeBatch, slot: int) -> bool:
        start, plan = self._plans.get(slot, (None, ()))
        done = tuple(episodes.actions[slot])
        return start is not None and start is episodes.starts[slot] and plan[: len(done)] == done


def search(episodes: EpisodeBatch, slots: Slots, depth: int) -> tuple[npt.NDArray[np.float64], list[tuple[int, ...]]]:
    """Find the best chain of up to ``depth`` more tools for each of the ``slots``; the episodes stay as they are.

    Returns:
        The highest sum of rewards ``(len(slots),)``, 0 or more, and its tools (none for 0).
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
        unfinished = every[~branches.over & allowed.ravel()]
        if len(unfinished):
            later, chains = search(branches, unfinished, depth - 1)
            sums[unfinished] += later
            for row, chain in zip(unfinished, chains, strict=True):
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
