"""Batches of episodes: the state and the step that both environments share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from torch import Tensor

from restore_env.episodes.dynamics import Dynamics, PixelDynamics, PreparedStarts, Values
from restore_env.episodes.image_batch import Slots
from restore_env.episodes.observation import Observation, flattened, observation_keys, observation_space, observe
from restore_env.episodes.transition import Actions, StepRules
from restore_env.images.arrays import quantized, to_hwc
from restore_env.levels.dynamics import LevelDynamics
from restore_env.metrics import Metric
from restore_env.resolve import complete_task, task_toolbox
from restore_env.sampling import EpisodeStart
from restore_env.task import Task

UNUSED = -1
"""Fills the end of a chain of actions."""


@dataclass
class Progress:
    """How far ``n`` episodes are, as arrays with a row per episode."""

    chains: Actions
    """Actions so far, ``(n, max_steps)``, then :data:`UNUSED`."""
    steps: Actions
    """Number of actions so far."""
    psnrs: Values
    """dB at the start and after each action, ``(n, max_steps + 1)``; meaningless after the last action."""
    score: Values
    """The working image's score by the reward's metric."""
    returns: Values
    """Sum of rewards."""
    gmacs: Values
    """Computation so far."""
    remaining: Actions
    """How many times smaller than its target the working image is."""
    over: npt.NDArray[np.bool_]
    """Whether the episode has ended, or none has begun."""

    @classmethod
    def none(cls, n: int, max_steps: int) -> Progress:
        """No episode in any of ``n`` slots."""
        whole = np.int64
        return cls(
            chains=np.full((n, max_steps), UNUSED, dtype=whole),
            steps=np.zeros(n, dtype=whole),
            psnrs=np.zeros((n, max_steps + 1)),
            score=np.zeros(n),
            returns=np.zeros(n),
            gmacs=np.zeros(n),
            remaining=np.ones(n, dtype=whole),
            over=np.ones(n, dtype=np.bool_),
        )

    def copy_from(self, slots: Slots, other: Progress, theirs: Slots) -> None:
        """Copy rows of another batch."""
        for name, values in vars(self).items():
            values[slots] = getattr(other, name)[theirs]


class EpisodeBatch:
    """The state of ``n`` episodes and their common step.

    Each slot holds one episode: its working image, its target and its toolchain so far.

    Args:
        task: toolbox, reward, limits and devices.
        n: number of slots.
        dynamics: what tools do to the images; None computes it.

    Raises:
        ValueError: the task names a toolbox or a reward that cannot be used.
    """

    def __init__(self, task: Task, n: int, dynamics: Dynamics | None = None) -> None:
        self.task, self.n = complete_task(task), n
        self._open()
        task = self.task
        if dynamics is None:
            dynamics = PixelDynamics(task, n) if task.levels is None else LevelDynamics(task, n)
        self.dynamics: Dynamics = dynamics
        self._keys = observation_keys(task.observation)
        self.progress = Progress.none(n, task.max_steps)
        self.starts: list[EpisodeStart | None] = [None] * n

    def __getstate__(self) -> dict[str, Any]:
        """All but the toolbox, which :meth:`__setstate__` opens again."""
        return {name: value for name, value in vars(self).items() if name not in ("toolbox", "rules")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the toolbox again."""
        self.__dict__.update(state)
        self._open()

    def _open(self) -> None:
        task = self.task
        self.toolbox = task_toolbox(task)
        self.rules = StepRules(self.toolbox, task.max_steps, task.cost_weight, task.stop_if_worse)

    @property
    def observation_space(self) -> spaces.Space[Any]:
        """The space of one observation."""
        task = self.task
        return observation_space(
            self._keys, task.patch_size, task.dtype, len(self.toolbox), task.max_steps, task.flatten
        )

    @property
    def n_actions(self) -> int:
        """Number of actions: the tools and ``stop``."""
        return self.rules.n_actions

    @property
    def over(self) -> npt.NDArray[np.bool_]:
        """Whether each slot's episode has ended, or none has begun: ``(n,)``."""
        return self.progress.over

    @property
    def gmacs(self) -> Values:
        """Computation of each episode so far: ``(n,)``."""
        return self.progress.gmacs

    @property
    def actions(self) -> list[list[int]]:
        """The actions of each episode so far."""
        return [chain[:steps] for chain, steps in zip(self.progress.chains.tolist(), self._steps(), strict=True)]

    @property
    def psnr_trace(self) -> list[list[float]]:
        """PSNR of each episode at its start and after each action, dB."""
        return [trace[: steps + 1] for trace, steps in zip(self.progress.psnrs.tolist(), self._steps(), strict=True)]

    def last_action(self, slots: Slots) -> Actions:
        """The previous action in each slot, the number after ``stop`` at the start: ``(len(slots),)``."""
        steps = self.progress.steps[slots]
        last = self.progress.chains[slots, np.maximum(steps - 1, 0)]
        return np.where(steps > 0, last, self.rules.no_action)

    def single_threaded(self) -> AbstractContextManager[None]:
        """Within this context PyTorch uses one thread a tool, where that is faster."""
        return self.dynamics.single_threaded()

    def reset(self, slots: Slots, starts: Sequence[EpisodeStart]) -> None:
        """Start new episodes in ``slots``, one for each start.

        Raises:
            ValueError: a distorted image is smaller than the observed patch.
        """
        self.commit(slots, self.prepare(starts))

    def prepare(self, starts: Sequence[EpisodeStart]) -> PreparedStarts:
        """Load and measure starts for :meth:`commit`, while their slots may still be in use.

        Raises:
            ValueError: a distorted image is smaller than the observed patch.
        """
        return self.dynamics.prepare(starts)

    def commit(self, slots: Slots, prepared: PreparedStarts) -> None:
        """Start prepared episodes in ``slots``, one for each start."""
        self.dynamics.commit(slots, prepared)
        for slot, start in zip(slots.tolist(), prepared.starts, strict=True):
            self.starts[slot] = start
        state = self.progress
        state.chains[slots] = UNUSED
        state.steps[slots] = 0
        state.psnrs[slots, 0] = prepared.psnrs
        state.score[slots] = prepared.scores
        state.returns[slots] = 0
        state.gmacs[slots] = 0
        state.remaining[slots] = [start.factor for start in prepared.starts]
        state.over[slots] = False

    def ends(self, slots: Slots, actions: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Whether each action certainly ends its episode, ``(len(slots),)``; ``stop_if_worse`` may end others, too.

        Raises:
            ValueError: an action that does not exist.
        """
        return self.rules.is_last(self.rules.checked(actions, len(slots)), self.progress.steps[slots])

    def step(
        self, slots: Slots, actions: npt.NDArray[np.int64], meanwhile: Iterable[None] = ()
    ) -> npt.NDArray[np.float64]:
        """Carry out one action in each of the ``slots``, update ``over``, and return the rewards ``(len(slots),)``.

        Args:
            slots: slots whose episodes are not over.
            actions: one for each slot.
            meanwhile: other work, done while the tools run (:meth:`restore_env.episodes.dynamics.Dynamics.apply`).

        Raises:
            ValueError: an action that does not exist.
        """
        state = self.progress
        ends, actions = self.ends(slots, actions), np.asarray(actions)
        allowed = self.action_mask()[slots, actions].astype(bool)
        acting = np.flatnonzero(allowed & (actions != self.toolbox.stop))
        moving, tools = slots[acting], actions[acting]
        spent = self.rules.cost(tools, self.dynamics.pixels(moving))
        scores, psnrs = self.dynamics.apply(moving, tools, meanwhile)
        rewards = np.zeros(len(slots))
        rewards[acting] = self.rules.reward(state.score[moving], scores, spent)
        steps = state.steps[slots]
        state.chains[slots, steps] = actions
        state.psnrs[slots, steps + 1] = state.psnrs[slots, steps]
        state.psnrs[moving, steps[acting] + 1] = psnrs
        state.score[moving] = scores
        state.remaining[moving] = self.rules.remaining_after(state.remaining[moving], tools)
        state.gmacs[moving] += spent
        state.returns[slots] += rewards
        state.steps[slots] = steps + 1
        state.over[slots] = ends | self.rules.has_failed(state.psnrs[slots, steps + 1], state.psnrs[slots, 0])
        return rewards

    def one_step_rewards(self, slots: Slots) -> npt.NDArray[np.float64]:
        """The reward of each action now, by running every tool: ``(len(slots), n_actions)``.

        0 for ``stop`` and for masked actions. The episodes stay as they are.
        """
        mask = self.action_mask()[slots, :-1].astype(bool)
        scores = self.dynamics.one_step_scores(slots, mask)
        pixels = self.dynamics.pixels(slots)[:, None]
        spent = self.rules.cost(np.arange(len(self.toolbox))[None], pixels)
        rewards = np.where(mask, self.rules.reward(self.progress.score[slots][:, None], scores, spent), 0.0)
        return np.append(rewards, np.zeros((len(slots), 1)), axis=1)

    def fork(self, slots: Slots) -> EpisodeBatch:
        """Copy episodes into a new batch: its slot ``i`` continues the episode of ``slots[i]``.

        A slot may be listed more than once. The batches share only the starts and the toolbox.
        """
        branch = EpisodeBatch(self.task, len(slots), self.dynamics.like(len(slots)))
        branch.copy_from(np.arange(len(slots)), self, slots)
        return branch

    def copy_from(self, slots: Slots, other: EpisodeBatch, theirs: Slots) -> None:
        """Copy episodes of another batch of the same task into ``slots``."""
        self.progress.copy_from(slots, other.progress, theirs)
        begun = np.array([other.starts[slot] is not None for slot in theirs], dtype=np.bool_)
        for slot, source in zip(slots.tolist(), theirs.tolist(), strict=True):
            self.starts[slot] = other.starts[source]
        self.dynamics.copy_from(slots[begun], other.dynamics, theirs[begun])

    def plain_state(self) -> dict[str, Any]:
        """The episodes as plain values and tensors, for a file: seeds of their starts, progress and working images.

        Raises:
            ValueError: an episode started from a pair of the user's own.
        """
        seeds = [None if start is None else start.seed for start in self.starts]
        if any(seed is not None and seed < 0 for seed in seeds):
            raise ValueError("an episode that started from a pair of the user's own has no seed to go back to")
        progress = {name: torch.from_numpy(values.copy()) for name, values in vars(self.progress).items()}
        return {"seeds": seeds, "progress": progress, "images": self.dynamics.plain_state(_begun(seeds))}

    def restore_plain_state(
        self, state: Mapping[str, Any], starts: Callable[[Sequence[int]], Iterable[EpisodeStart]]
    ) -> None:
        """Go back to what :meth:`plain_state` gave.

        Args:
            state: of a batch of as many slots, of the same task.
            starts: turns seeds into starts.
        """
        seeds = state["seeds"]
        if len(seeds) != self.n:
            raise ValueError(f"the state has {len(seeds)} slot(s), the batch {self.n}")
        slots = _begun(seeds)
        self.starts = [None] * self.n
        self.reset(slots, list(starts([seed for seed in seeds if seed is not None])))
        for name, values in vars(self.progress).items():
            values[...] = state["progress"][name].numpy()
        self.dynamics.restore_plain_state(slots, state["images"])

    def action_mask(self) -> npt.NDArray[np.int8]:
        """1 where an action is allowed: ``(n, n_actions)``."""
        return self.rules.action_mask(self.progress.remaining)

    def observe(self, slots: Slots) -> Observation:
        """Observations of ``slots``, batched along the first axis; the caller owns the arrays."""
        left = self.task.max_steps - self.progress.steps[slots]
        mask = self.action_mask()[slots]
        observed = observe(self.dynamics.views(slots), self.last_action(slots), mask, left)
        return {key: observed[key] for key in self._keys}

    def observations(self, slots: Slots) -> Any:
        """What the environment returns: :meth:`observe`, or with the task's ``flatten`` rows ``(len(slots), D)``."""
        observed = self.observe(slots)
        return flattened(observed, len(self.toolbox)) if self.task.flatten else observed

    def infos(self, slots: Slots) -> dict[str, npt.NDArray[Any]]:
        """Infos of ``slots`` as arrays with a row per slot (see "Information" of the environment)."""
        state, starts = self.progress, [self.start(slot) for slot in slots.tolist()]
        infos = {
            "psnr": state.psnrs[slots, state.steps[slots]],
            "initial_psnr": state.psnrs[slots, 0],
            "toolchain": state.chains[slots],
            "gmacs": state.gmacs[slots],
            "upscale": np.array([start.factor for start in starts], dtype=np.int64),
            "photograph": np.array([start.index for start in starts], dtype=np.int64),
            "episode_seed": np.array([start.seed for start in starts], dtype=np.int64),
            "action_mask": self.action_mask()[slots],
        }
        if isinstance(self.dynamics, LevelDynamics):
            level = np.array([start.level for start in starts], dtype=np.int64)
            infos |= {"level": level, "best_return": self.dynamics.optima.best_return[level]}
        if self.task.info == "full":
            described = [self.describe(slot) for slot in slots.tolist()]
            for key in ("tools", "photograph_name", "distortion"):
                infos[key] = np.fromiter((each[key] for each in described), dtype=object, count=len(slots))
        return infos

    def info(self, slot: int) -> dict[str, Any]:
        """The info of one slot."""
        return {key: values[0] for key, values in self.infos(np.array([slot])).items()}

    def describe(self, slot: int) -> dict[str, Any]:
        """What is not a number of fixed shape: ``tools`` (names), ``photograph_name`` and ``distortion``.

        Raises:
            ValueError: no episode has been started in the slot.
        """
        start = self.start(slot)
        return {
            "tools": tuple(self.toolbox.name(action) for action in self.actions[slot]),
            "photograph_name": start.image,
            "distortion": dict(start.distortion),
        }

    def start(self, slot: int) -> EpisodeStart:
        """The start of a slot's episode.

        Raises:
            ValueError: no episode has been started in the slot.
        """
        start = self.starts[slot]
        if start is None:
            raise ValueError("no episode has started: call reset first")
        return start

    def working_image(self, slot: int) -> npt.NDArray[np.uint8]:
        """The working image of a slot as it would be saved: uint8 RGB ``(H, W, 3)``."""
        return _to_rgb8(self.dynamics.images(slot)[0])

    def target_image(self, slot: int) -> npt.NDArray[np.uint8]:
        """The target of a slot, uint8 RGB ``(H, W, 3)``."""
        return _to_rgb8(self.dynamics.images(slot)[1])

    def quality(self, slots: Slots, metric: Metric) -> npt.NDArray[np.float64]:
        """A metric of the working images of ``slots``, clipped to [0, 1], at the targets' size: ``(len(slots),)``."""
        return self.dynamics.quality(slots, metric)

    def _steps(self) -> list[int]:
        return list(self.progress.steps.tolist())


def _begun(seeds: Sequence[int | None]) -> Slots:
    """The slots with an episode."""
    return np.flatnonzero([seed is not None for seed in seeds])


def _to_rgb8(image: Tensor) -> npt.NDArray[np.uint8]:
    return np.asarray(to_hwc(quantized(image[None]))[0], dtype=np.uint8)
