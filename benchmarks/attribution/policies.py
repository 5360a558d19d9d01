"""Policies that attribute: a given chain for each start, and policies that lack a part."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from restore_env.episodes.batch import EpisodeBatch
from restore_env.policy import Policy


class ChainOfEach:
    """Plays a given chain from each start, then ``stop``; it is bound to the episodes that it plays.

    Args:
        chains: by the start's seed.
        stop: the toolbox's stop action.
    """

    def __init__(self, chains: Mapping[int, Sequence[int]], stop: int) -> None:
        self._chains, self._stop = chains, stop
        self._episodes: EpisodeBatch | None = None

    def bind(self, episodes: EpisodeBatch) -> None:
        """Set the episodes to play; row ``i`` of an observation is slot ``i``."""
        self._episodes = episodes

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[npt.NDArray[np.int64], None]:
        """The next action of each slot's chain."""
        assert self._episodes is not None
        actions = []
        for slot, done in enumerate(self._episodes.actions):
            left = self._chains[self._episodes.start(slot).seed][len(done) :]
            actions.append(left[0] if left else self._stop)
        return np.array(actions, dtype=np.int64), None


class AblatedPolicy:
    """A policy without some actions, without the previous action in its observation, or without memory.

    Args:
        policy: chooses.
        stop: False: ``stop`` is masked.
        previous: False: the observation never has the previous action.
        memory: False: every step is the first one.
        removed: tools that are masked.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        stop: bool = True,
        previous: bool = True,
        memory: bool = True,
        removed: Collection[int] = (),
    ) -> None:
        self._policy, self._previous, self._memory = policy, previous, memory
        self._masked = [*removed] if stop else [*removed, -1]

    def predict(
        self,
        observation: Any,
        state: Any | None = None,
        episode_start: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = True,
    ) -> tuple[npt.NDArray[np.int64], Any | None]:
        """Choose as the policy does without the part."""
        changed = dict(observation)
        if self._masked:
            changed["action_mask"] = np.array(observation["action_mask"])
            changed["action_mask"][:, self._masked] = 0
        if not self._previous:
            changed["last_action"] = np.full_like(observation["last_action"], observation["action_mask"].shape[1])
        return self._policy.predict(changed, state if self._memory else None, episode_start, deterministic)
