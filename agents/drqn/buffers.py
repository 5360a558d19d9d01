"""Replay of whole episodes, of different lengths, for recurrent value functions.

Source: Hausknecht & Stone, "Deep Recurrent Q-Learning for Partially Observable MDPs", 2015 (arXiv 1507.06527),
section 4, "bootstrapped sequential updates".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
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
"""The key of a Dict observation, or of an info, that says which actions are allowed."""
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
    has_target: Tensor
    """``(N, L)`` bool: the step exists and has a target."""


@dataclass
class _Recording:
    """An episode in progress."""

    observations: list[dict[str, Array]] = field(default_factory=list)
    masks: list[npt.NDArray[np.bool_]] = field(default_factory=list)
    actions: list[int] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class _Episode:
    """A finished episode of ``T`` steps: ``T`` observations, and a last one if it was truncated."""

    observations: dict[str, Array]
    masks: npt.NDArray[np.bool_]
    actions: npt.NDArray[np.int64]
    rewards: npt.NDArray[np.float32]
    terminated: bool

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
        self._episodes: deque[_Episode] = deque()
        self._recordings = [_Recording() for _ in range(self.n_envs)]
        self._stored = 0
        self.added = 0
        """Transitions that were ever added."""

    def discard_unfinished(self) -> None:
        """Remove the episodes in progress: the environments were reset."""
        self._recordings = [_Recording() for _ in range(self.n_envs)]

    def __len__(self) -> int:
        """Finished episodes."""
        return len(self._episodes)

    def size(self) -> int:
        """Transitions, those of the episodes in progress included."""
        return self._stored + sum(len(recording.actions) for recording in self._recordings)

    def add(
        self,
        obs: Observations,
        next_obs: Observations,
        action: Array,
        reward: Array,
        done: Array,
        infos: list[dict[str, Any]],
        action_masks: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """Add one step of every environment.

        Args:
            obs: the observations before the actions, ``(n_envs, ...)``.
            next_obs: what a vector environment returned; after an episode's end, the next one's first observation.
            action: ``(n_envs,)``.
            reward: ``(n_envs,)``.
            done: ``(n_envs,)``.
            infos: with ``terminal_observation`` and ``TimeLimit.truncated`` as Stable-Baselines3's have them, and
                optionally ``action_mask``, for the terminal observation.
            action_masks: ``(n_envs, A)`` for ``obs``, from an environment with the method ``action_masks``; None: the
                observation has them under ``action_mask``, or every action is allowed. After a truncated episode that
                method no longer gives the last observation's mask: without ``action_mask`` in the info the last step
                has no target.
        """
        actions = np.asarray(action).reshape(-1)
        for slot, recording in enumerate(self._recordings):
            observation = self._row(obs, slot)
            mask = self._allowed(observation, None if action_masks is None else action_masks[slot])
            assert mask is not None
            recording.observations.append(observation)
            recording.masks.append(mask)
            recording.actions.append(int(actions[slot]))
            recording.rewards.append(float(reward[slot]))
            self.added += 1
            info, cut = infos[slot], len(recording.actions) >= max(1, self.buffer_size // self.n_envs)
            if not done[slot] and not cut:
                continue
            terminated = bool(done[slot]) and not info.get("TimeLimit.truncated", False)
            last: Any = info.get("terminal_observation") if done[slot] else self._row(next_obs, slot)
            if not terminated and last is not None:
                last = self._row(last, ...)
                unknown = None if action_masks is None else info.get(ACTION_MASK) if done[slot] else None
                mask = self._allowed(last, unknown, known=action_masks is None)
                if mask is not None:
                    recording.observations.append(last)
                    recording.masks.append(mask)
            self._finish(slot, terminated)

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> ReplayedEpisodes:  # type: ignore[override]
        """Sample episodes uniformly, with replacement.

        Raises:
            ValueError: no episode is finished yet.
        """
        if not self._episodes:
            raise ValueError("no episode is finished yet, there is nothing to sample")
        drawn = [self._episodes[index] for index in self.rng.integers(len(self._episodes), size=batch_size)]
        return self._padded(drawn)

    def _padded(self, drawn: Iterable[_Episode]) -> ReplayedEpisodes:
        episodes = list(drawn)
        n, longest = len(episodes), max(map(len, episodes))
        observations = {
            key: np.zeros((n, longest + 1, *(space.shape or ())), dtype=space.dtype)
            for key, space in self._spaces.items()
        }
        observed = np.zeros((n, longest + 1), dtype=bool)
        masks = np.ones((n, longest + 1, self.n_actions), dtype=bool)
        actions = np.zeros((n, longest), dtype=np.int64)
        rewards = np.zeros((n, longest), dtype=np.float32)
        terminated, has_target = np.zeros((n, longest), dtype=bool), np.zeros((n, longest), dtype=bool)
        for row, episode in enumerate(episodes):
            length, known = len(episode), len(episode.masks)
            for key, values in episode.observations.items():
                observations[key][row, :known] = values
            observed[row, :known] = True
            masks[row, :known] = episode.masks
            actions[row, :length] = episode.actions
            rewards[row, :length] = episode.rewards
            terminated[row, length - 1] = episode.terminated
            has_target[row, : length if episode.terminated else known - 1] = True
        tensors = {key: torch.as_tensor(values, device=self.device) for key, values in observations.items()}
        rest = (
            torch.as_tensor(part, device=self.device)
            for part in (observed, masks, actions, rewards, terminated, has_target)
        )
        return ReplayedEpisodes(tensors if isinstance(self.observation_space, spaces.Dict) else tensors[_PLAIN], *rest)

    def _row(self, observations: Observations, slot: Any) -> dict[str, Array]:
        """A copy of one environment's observation, in its space's dtype."""
        nested = observations if isinstance(observations, dict) else {_PLAIN: observations}
        return {
            key: np.array(np.asarray(nested[key])[slot], dtype=space.dtype).reshape(space.shape or ())
            for key, space in self._spaces.items()
        }

    def _allowed(
        self, observation: dict[str, Array], given: Array | None, known: bool = True
    ) -> npt.NDArray[np.bool_] | None:
        """The actions allowed after an observation, or None where it is not known."""
        mask = observation.get(ACTION_MASK)
        mask = given if mask is None else mask
        if mask is None:
            return np.ones(self.n_actions, dtype=bool) if known else None
        return np.array(mask, dtype=bool)

    def _finish(self, slot: int, terminated: bool) -> None:
        recording, self._recordings[slot] = self._recordings[slot], _Recording()
        episode = _Episode(
            {key: np.stack([observation[key] for observation in recording.observations]) for key in self._spaces},
            np.stack(recording.masks),
            np.array(recording.actions, dtype=np.int64),
            np.array(recording.rewards, dtype=np.float32),
            terminated,
        )
        self._episodes.append(episode)
        self._stored += len(episode)
        while len(self._episodes) > 1 and self.size() > self.buffer_size:
            self._stored -= len(self._episodes.popleft())
