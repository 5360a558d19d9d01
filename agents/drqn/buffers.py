"""Replay of whole episodes, of different lengths, for recurrent value functions.

Source: Hausknecht & Stone, "Deep Recurrent Q-Learning for Partially Observable MDPs", 2015 (arXiv 1507.06527),
section 4, "bootstrapped sequential updates".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import BaseBuffer, ReplayBuffer
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

ACTION_MASK = "action_mask"
"""The key of a Dict observation that says which actions are allowed."""
_PLAIN = "observation"  # the key under which an observation that is not a Dict is stored

Array = npt.NDArray[Any]
Observations = Array | dict[str, Array]


class ReplayedEpisodes(NamedTuple):
    """A batch of ``N`` episodes, padded to the longest of them, ``L`` steps."""

    observations: Tensor | dict[str, Tensor]
    """``(N, L + 1, ...)`` in the space's dtype; zeros where ``observed`` is false."""
    observed: Tensor
    """``(N, L + 1)`` bool: there is an observation. None follows a terminating step."""
    action_masks: Tensor
    """``(N, L + 1, A)`` bool: allowed actions; all of them where ``observed`` is false."""
    actions: Tensor
    """``(N, L)`` int64."""
    rewards: Tensor
    """``(N, L)`` float32."""
    terminated: Tensor
    """``(N, L)`` bool: the step ended the episode. A step that a time limit truncated did not."""
    taken: Tensor
    """``(N, L)`` bool: the step exists."""


@dataclass
class Episode:
    """An episode of ``T`` steps: ``T`` observations, and a last one if it was truncated."""

    observations: list[dict[str, Array]] = field(default_factory=list)
    actions: list[int] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    terminated: bool = False

    def __len__(self) -> int:
        return len(self.actions)


class EpisodeReplayBuffer(ReplayBuffer):
    """Stores whole episodes and samples batches of them.

    Observations are stored in the dtype of their space (images as uint8). The oldest episodes are removed first.

    Args:
        buffer_size: most transitions to store, those of episodes in progress included. An episode in progress is
            truncated, as by a time limit, at ``buffer_size // n_envs`` steps; the newest episode is always kept.
        observation_space: Box, Discrete, MultiDiscrete, MultiBinary or a Dict of these.
        action_space: Discrete, counted from 0.
        device: of the batches.
        n_envs: parallel environments.
        optimize_memory_usage: must be False; part of Stable-Baselines3's signature.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: torch.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
    ) -> None:
        BaseBuffer.__init__(self, buffer_size, observation_space, action_space, device, n_envs)  # allocates nothing
        if not isinstance(action_space, spaces.Discrete) or action_space.start != 0:
            raise ValueError(f"the action space must be Discrete, counted from 0; it is {action_space}")
        if optimize_memory_usage:
            raise ValueError("optimize_memory_usage is for replay of transitions; episodes share observations anyway")
        if buffer_size < 1:
            raise ValueError("buffer_size must be 1 or more")
        nested = observation_space.spaces if isinstance(observation_space, spaces.Dict) else {_PLAIN: observation_space}
        self._spaces: dict[str, spaces.Space[Any]] = dict(nested)
        self.optimize_memory_usage, self.handle_timeout_termination = False, True
        self.n_actions = int(action_space.n)
        self.rng = np.random.default_rng()
        """Samples the batches; :class:`agents.drqn.drqn.DRQN` seeds it."""
        self.reset()

    def reset(self) -> None:
        """Remove all transitions."""
        self._episodes: deque[Episode] = deque()
        self._stored = 0
        self.added = 0
        """Transitions that were ever added."""
        self.finished = 0
        """Episodes that were ever finished."""
        self.discard_unfinished()

    @property
    def episodes(self) -> Sequence[Episode]:
        """Finished episodes, the oldest first."""
        return self._episodes

    @property
    def unfinished(self) -> Sequence[Episode]:
        """The episode in progress of each environment."""
        return self._unfinished

    def fill(self, episodes: Sequence[Episode], unfinished: Sequence[Episode], *, added: int, finished: int) -> None:
        """Replace everything.

        Args:
            episodes: finished ones, the oldest first.
            unfinished: one of each environment.
            added: transitions that were ever added.
            finished: episodes that were ever finished.
        """
        if len(unfinished) != self.n_envs:
            raise ValueError(f"{len(unfinished)} episodes in progress, expected {self.n_envs}")
        self._episodes, self._unfinished = deque(episodes), list(unfinished)
        self._stored, self.added, self.finished = sum(map(len, episodes)), added, finished

    def discard_unfinished(self) -> None:
        """Remove the episodes in progress: the environments were reset."""
        self._unfinished = [Episode() for _ in range(self.n_envs)]

    def __len__(self) -> int:
        """Finished episodes."""
        return len(self._episodes)

    def size(self) -> int:
        """Transitions, those of the episodes in progress included."""
        return self._stored + sum(map(len, self._unfinished))

    def add(
        self,
        obs: Observations,
        next_obs: Observations,
        action: Array,
        reward: Array,
        done: Array,
        infos: list[dict[str, Any]],
    ) -> None:
        """Add one step of every environment.

        Args:
            obs: the observations before the actions, ``(n_envs, ...)``.
            next_obs: what a vector environment returned; after an episode's end, the next one's first observation.
            action: ``(n_envs,)``.
            reward: ``(n_envs,)``.
            done: ``(n_envs,)``.
            infos: with ``terminal_observation`` and ``TimeLimit.truncated`` as Stable-Baselines3's have them.
        """
        actions = np.asarray(action).reshape(-1)
        for slot, episode in enumerate(self._unfinished):
            episode.observations.append(self._row(obs, slot))
            episode.actions.append(int(actions[slot]))
            episode.rewards.append(float(reward[slot]))
            self.added += 1
            info = infos[slot]
            if not done[slot] and len(episode) < max(1, self.buffer_size // self.n_envs):
                continue
            episode.terminated = bool(done[slot]) and not info.get("TimeLimit.truncated", False)
            if not episode.terminated:
                last = self._row(info["terminal_observation"], ...) if done[slot] else self._row(next_obs, slot)
                episode.observations.append(last)
            self._unfinished[slot] = Episode()
            self._episodes.append(episode)
            self.finished += 1
            self._stored += len(episode)
            while len(self._episodes) > 1 and self.size() > self.buffer_size:
                self._stored -= len(self._episodes.popleft())

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> ReplayedEpisodes:  # type: ignore[override]
        """Sample episodes uniformly, with replacement.

        Raises:
            ValueError: no episode is finished yet.
        """
        if not self._episodes:
            raise ValueError("no episode is finished yet, there is nothing to sample")
        drawn = self.rng.integers(len(self._episodes), size=batch_size)
        return self._padded([self._episodes[index] for index in drawn])

    def _padded(self, episodes: Sequence[Episode]) -> ReplayedEpisodes:
        longest = max(map(len, episodes))

        def padded(parts: Sequence[Sequence[Any]], length: int, dtype: Any, shape: Any = ()) -> Tensor:
            rows = np.zeros((len(parts), length, *shape), dtype)
            for row, part in zip(rows, parts, strict=True):
                row[: len(part)] = part
            return torch.as_tensor(rows, device=self.device)

        observations = {
            key: padded(
                [[one[key] for one in episode.observations] for episode in episodes],
                longest + 1,
                space.dtype,
                space.shape or (),
            )
            for key, space in self._spaces.items()
        }
        observed = padded([[True] * len(episode.observations) for episode in episodes], longest + 1, bool)
        masks = torch.ones(*observed.shape, self.n_actions, dtype=torch.bool, device=self.device)
        if ACTION_MASK in observations:
            masks = observations[ACTION_MASK].bool() | ~observed[..., None]
        return ReplayedEpisodes(
            observations if isinstance(self.observation_space, spaces.Dict) else observations[_PLAIN],
            observed,
            masks,
            actions=padded([episode.actions for episode in episodes], longest, np.int64),
            rewards=padded([episode.rewards for episode in episodes], longest, np.float32),
            terminated=padded([[False] * (len(e) - 1) + [e.terminated] for e in episodes], longest, bool),
            taken=padded([[True] * len(episode) for episode in episodes], longest, bool),
        )

    def _row(self, observations: Observations, slot: Any) -> dict[str, Array]:
        """A copy of one environment's observation, in its space's dtype."""
        nested = observations if isinstance(observations, dict) else {_PLAIN: observations}
        return {
            key: np.array(np.asarray(nested[key])[slot], dtype=space.dtype).reshape(space.shape or ())
            for key, space in self._spaces.items()
        }
