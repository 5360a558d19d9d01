"""Copies of environments in the middle of an episode: states to go back to, deep copies, pickling."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
from gymnasium.utils import seeding

from restore_env.episodes.batch import EpisodeBatch
from restore_env.episodes.rendering import EpisodeView
from restore_env.levels.dynamics import LevelDynamics
from restore_env.levels.optima import Optima
from restore_env.levels.starts import LevelStarts
from restore_env.levels.store import LevelError
from restore_env.resolve import task_sampler
from restore_env.sampling import StartSampler
from restore_env.task import Task

AnEnv = TypeVar("AnEnv", bound="Forkable")


@dataclass(frozen=True)
class EnvState:
    """The state of an environment: of its episodes, random generators and pictures."""

    episodes: EpisodeBatch
    generators: Any
    views: Sequence[EpisodeView | None]


class Forkable:
    """Base class of both environments: their episodes, and copies of their state."""

    GENERATORS: ClassVar[str]
    """The attribute that holds the random generator or generators."""
    task: Task

    def _open(self, task: Task, n: int) -> None:
        """Open what a task names and make ``n`` slots."""
        self._episodes = EpisodeBatch(task, n)
        self.task = self._episodes.task
        self._sampler: StartSampler | LevelStarts = task_sampler(self.task)
        self.toolbox = self._episodes.toolbox
        self._views: list[EpisodeView | None] = [None] * n

    @property
    def episodes(self) -> EpisodeBatch:
        """The state of the episodes, for oracles and analysis; agents must not use it."""
        return self._episodes

    @property
    def optima(self) -> Optima:
        """The best chain of each level of the level set that is played, and the best constant chain.

        Raises:
            LevelError: no level set is played.
        """
        if not isinstance(self._episodes.dynamics, LevelDynamics):
            raise LevelError("exact optima need a level set: make the environment with levels=")
        return self._episodes.dynamics.optima

    def clone_state(self) -> EnvState:
        """The state of episodes and random generators, for :meth:`restore_state`."""
        episodes = self._episodes.fork(np.arange(self._episodes.n))
        views = [None if view is None else view.of(episodes) for view in self._views]
        return EnvState(episodes, copy.deepcopy(getattr(self, self.GENERATORS)), views)

    def plain_state(self) -> dict[str, Any]:
        """The state of episodes and random generators as plain values and tensors, for a file.

        Raises:
            ValueError: an episode started from a pair of the user's own.
        """
        generators = getattr(self, self.GENERATORS)
        listed = generators if isinstance(generators, list) else [generators]
        texts = [None if each is None else json.dumps(each.bit_generator.state) for each in listed]
        return {"episodes": self._episodes.plain_state(), "generators": texts}

    def restore_plain_state(self, state: Mapping[str, Any]) -> None:
        """Go back to what :meth:`plain_state` gave, of this environment or one with the same arguments.

        Raises:
            ValueError: a state of another number of slots.
        """
        self._episodes.restore_plain_state(state["episodes"], self._sampler.starts)
        generators: list[np.random.Generator | None] = []
        for text in state["generators"]:
            generators.append(None if text is None else seeding.np_random(0)[0])
            if text is not None:
                generators[-1].bit_generator.state = json.loads(text)  # type: ignore[union-attr]
        setattr(self, self.GENERATORS, generators if self.GENERATORS == "_rngs" else generators[0])

    def restore_state(self, state: EnvState) -> None:
        """Go back to a state of this environment, or of one with the same arguments; it can be restored again.

        Raises:
            ValueError: a state of another number of slots.
        """
        if state.episodes.n != self._episodes.n:
            raise ValueError(f"the state has {state.episodes.n} slot(s), the environment {self._episodes.n}")
        for name in ("max_steps", "levels", "patch_size"):
            theirs, own = getattr(state.episodes.task, name), getattr(self.task, name)
            if theirs != own:
                raise ValueError(f"the state is of an environment with {name}={theirs!r}, this one has {own!r}")
        slots = np.arange(self._episodes.n)
        self._episodes.copy_from(slots, state.episodes, slots)
        setattr(self, self.GENERATORS, copy.deepcopy(state.generators))
        self._views = [None if view is None else view.of(self._episodes) for view in state.views]

    def __deepcopy__(self: AnEnv, memo: dict[int, Any]) -> AnEnv:
        """A second environment with the same future; the two share toolbox and photographs."""
        other = copy.copy(self)
        shared = (StartSampler, LevelStarts, EpisodeBatch, Task, type(self.toolbox))
        for name, value in vars(self).items():
            if not isinstance(value, shared) and name not in ("_views", "render_mode", "spec"):
                setattr(other, name, copy.deepcopy(value, memo))
        other._episodes = self._episodes.fork(np.arange(self._episodes.n))
        other._views = [None if view is None else view.of(other._episodes) for view in self._views]
        return other

    def __copy__(self: AnEnv) -> AnEnv:
        """A shallow copy."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def __getstate__(self) -> dict[str, Any]:
        """All but what :meth:`__setstate__` opens again: toolbox and photographs."""
        return {name: value for name, value in vars(self).items() if name not in ("toolbox", "_sampler")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open toolbox and photographs again."""
        self.__dict__.update(state)
        self._sampler = task_sampler(self.task)
        self.toolbox = self._episodes.toolbox
