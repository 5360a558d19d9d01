"""The vector environment ``ImageRestore-v0``: N episodes with one batched step."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from restore_env.env import ImageRestoreEnv, check_render_mode, choose_start
from restore_env.episodes.dynamics import PreparedStarts
from restore_env.episodes.forking import Forkable
from restore_env.episodes.image_batch import Slots
from restore_env.episodes.record import EpisodeRecord
from restore_env.episodes.rendering import EpisodeView, render_episode
from restore_env.levels.starts import LevelStarts
from restore_env.sampling import EpisodeStart, StartSampler
from restore_env.task import Task

Infos = dict[str, Any]


class ImageRestoreVectorEnv(Forkable, VectorEnv[Any, npt.NDArray[np.int64], npt.NDArray[Any]]):
    """N :class:`ImageRestoreEnv` with one batched step.

    Equal to ``SyncVectorEnv`` of the single environment: to the bit with the shipped tools, whose rounding does not
    depend on the size of a batch; tools of your own may differ in the last bit. Slot ``i`` is seeded with ``seed + i``.
    ``reset`` takes pairs as two lists with an entry per slot, ``options={"distorted": [...], "target": [...]}``.

    Args:
        num_envs: number of slots.
        autoreset_mode: ``NEXT_STEP`` (Gymnasium's default), ``SAME_STEP`` (what Stable-Baselines3 needs), or
            ``DISABLED`` (``reset(options={"reset_mask": mask})`` starts new episodes).
        render_mode: "rgb_array" or None; ``render()`` gives a picture per slot.
        arguments: the fields of :class:`restore_env.Task`.
    """

    GENERATORS: ClassVar[str] = "_rngs"
    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        **ImageRestoreEnv.metadata,
        "render_modes": ["rgb_array"],
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        images: Any = None,
        *,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        **arguments: Any,
    ) -> None:
        if int(num_envs) != num_envs or num_envs < 1:
            raise ValueError(f"num_envs must be a whole number of 1 or more, got {num_envs!r}")
        check_render_mode(render_mode, self.metadata["render_modes"])
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**type(self).metadata, "autoreset_mode": self.autoreset_mode}  # type: ignore[misc]
        self.num_envs, self.render_mode = int(num_envs), render_mode
        self._open(Task(images=images, **arguments), self.num_envs)
        self.single_observation_space = self._episodes.observation_space
        self.single_action_space = spaces.Discrete(self._episodes.n_actions)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._slots: Slots = np.arange(self.num_envs)
        self._rngs: list[np.random.Generator | None] = [None] * self.num_envs
        self._drawn: list[np.random.Generator] = []
        """Those that have drawn a number since the last step began."""

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, Infos]:
        """Start an episode in every slot, or in those of ``options["reset_mask"]``.

        Raises:
            ValueError: a mask, seeds or options that do not fit the slots.
        """
        seeds = self._seeds(seed)
        options = dict(options or {})
        self._drawn.clear()
        mask = options.pop("reset_mask", None)
        slots = self._slots if mask is None else np.flatnonzero(self._checked_mask(mask))
        for slot in slots:
            if seeds[slot] is not None or self._rngs[slot] is None:
                self._rngs[slot] = seeding.np_random(seeds[slot])[0]
        self._start(slots, [self._prepare(self._draw(slots, options))])
        return self._episodes.observations(self._slots), self._infos(slots)

    def step(
        self, actions: npt.NDArray[np.int64]
    ) -> tuple[Any, npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.bool_], Infos]:
        """Step every slot; in mode NEXT_STEP a slot whose episode is over starts a new one instead.

        Raises:
            gymnasium.error.ResetNeeded: no episode has been started, or, in mode DISABLED, a slot's episode is over.
            ValueError: an action that does not exist, or not one action per slot.
            ToolError: a tool or the reward failed; every slot is as before the step.
        """
        self._drawn.clear()
        try:
            with self._episodes.single_threaded():
                return self._step(np.asarray(actions))
        except Exception:  # such as a tool's: nothing has happened, so nothing has been drawn
            for rng in self._drawn:
                rng.bit_generator.advance(-1)  # type: ignore[attr-defined]  # Gymnasium's is a PCG64
            raise

    def _step(
        self, actions: npt.NDArray[np.int64]
    ) -> tuple[Any, npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.bool_], Infos]:
        if actions.shape != (self.num_envs,):
            raise ValueError(f"{self.num_envs} environments need as many actions, got shape {actions.shape}")
        over = self._episodes.over.copy()
        if not self._started or (over.any() and self.autoreset_mode is not AutoresetMode.NEXT_STEP):
            finished = np.flatnonzero(over).tolist()
            raise gym.error.ResetNeeded(f"no running episode in slot(s) {finished}: call reset first")
        running = np.flatnonzero(~over)
        same_step = self.autoreset_mode is AutoresetMode.SAME_STEP
        ended = running[self._episodes.ends(running, actions[running])] if same_step else np.flatnonzero(over)
        prepared: list[PreparedStarts] = []

        def prepare_next() -> Iterator[None]:
            starts = self._draw(ended)
            yield
            prepared.append(self._prepare(starts))

        draws = self.autoreset_mode is not AutoresetMode.DISABLED
        before = self._episodes.fork(running) if same_step and self.task.stop_if_worse else None
        rewards = np.zeros(self.num_envs)
        rewards[running] = self._episodes.step(running, actions[running], prepare_next() if draws else ())
        terminated = self._episodes.over.copy()
        worse = np.setdiff1d(np.flatnonzero(terminated), ended)
        if before is not None and len(worse):
            try:
                prepared.append(self._prepare(self._draw(worse)))
            except Exception:
                self._episodes.copy_from(running, before, np.arange(len(running)))
                raise
        if self.render_mode is not None:
            for slot in running:
                view = self._views[slot]
                if view is not None:
                    view.update()
        infos: Infos = {}
        if same_step:
            infos = self._restart(np.concatenate([ended, worse]), prepared)
        elif len(ended):
            self._start(ended, prepared)
            terminated[ended] = False
        infos |= self._infos(self._slots)
        return self._episodes.observations(self._slots), rewards, terminated, np.zeros_like(terminated), infos

    @property
    def sampler(self) -> StartSampler | LevelStarts:
        """The sampler of the episodes' starts."""
        return self._sampler

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Which actions are allowed, ``(num_envs, n + 1)``."""
        return np.asarray(self._episodes.action_mask(), dtype=np.bool_)

    def describe(self, slot: int) -> dict[str, Any]:
        """A slot's names of actions so far (``tools``), ``photograph_name``, and levels of the ``distortion``."""
        return self._episodes.describe(slot)

    def record(self, slot: int) -> EpisodeRecord:
        """The record of a slot's episode so far, which can be saved and replayed."""
        return EpisodeRecord.of(self._episodes, slot)

    def render(self) -> tuple[npt.NDArray[np.uint8], ...] | None:
        """A picture of each slot's episode, uint8 RGB, in mode "rgb_array"."""
        views = [view for view in self._views if view is not None]
        return tuple(render_episode(view) for view in views) if views else None

    def _restart(self, finished: Slots, prepared: Sequence[PreparedStarts]) -> Infos:
        """Start new episodes in ``finished`` slots and return the last observations and infos of the old ones."""
        if not len(finished):
            return {}
        last = self._episodes.observations(finished)
        observations = np.full(self.num_envs, None, dtype=object)
        for row, slot in enumerate(finished.tolist()):
            observations[slot] = last[row] if self.task.flatten else {key: value[row] for key, value in last.items()}
        infos = {
            "final_obs": observations,
            "_final_obs": _mask(finished, self.num_envs),
            "final_info": self._infos(finished),
            "_final_info": _mask(finished, self.num_envs),
        }
        self._start(finished, prepared)
        return infos

    def _infos(self, slots: Slots) -> Infos:
        """Infos of ``slots`` as Gymnasium batches them: under ``_key`` stands which slots have a value."""
        infos: Infos = {}
        for key, values in self._episodes.infos(slots).items():
            if values.dtype == object and isinstance(values[0], dict):
                infos[key] = _batch_dictionaries(list(values), slots, self.num_envs)
            else:
                infos[key] = _spread(values, slots, self.num_envs)
            infos[f"_{key}"] = _mask(slots, self.num_envs)
        return infos

    @property
    def _started(self) -> bool:
        return self._rngs[0] is not None

    def _draw(self, slots: Slots, options: dict[str, Any] | None = None) -> Iterator[EpisodeStart]:
        chosen = []
        for slot in slots:
            rng = self._rngs[slot]
            assert rng is not None
            self._drawn.append(rng)
            chosen.append(choose_start(rng, self._options_of(slot, options)))
        return self._sampler.starts(chosen)

    def _prepare(self, starts: Iterator[EpisodeStart]) -> PreparedStarts:
        """Wait for the starts and prepare them."""
        return self._episodes.prepare(list(starts))

    def _start(self, slots: Slots, prepared: Sequence[PreparedStarts]) -> None:
        first = 0
        for each in prepared:
            self._episodes.commit(slots[first : first + len(each.starts)], each)
            first += len(each.starts)
        if self.render_mode is not None:
            for slot in slots:
                self._views[slot] = EpisodeView(self._episodes, slot)

    def _options_of(self, slot: int, options: dict[str, Any] | None) -> dict[str, Any]:
        """The options of one slot: lists and arrays of seeds have an entry per slot, any other value holds for all."""
        own: dict[str, Any] = {}
        for key, value in (options or {}).items():
            if isinstance(value, (list, tuple)) or (key == "episode_seed" and np.ndim(value)):
                if len(value) != self.num_envs:
                    raise ValueError(f"reset option {key!r} needs {self.num_envs} entries, got {len(value)}")
                own[key] = value[slot]
            else:
                own[key] = value
        return own

    def _seeds(self, seed: int | Sequence[int | None] | None) -> Sequence[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, (int, np.integer)):
            return [int(seed) + slot for slot in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(f"{self.num_envs} environments need as many seeds, got {len(seed)}")
        return seed

    def _checked_mask(self, mask: Any) -> npt.NDArray[np.bool_]:
        mask = np.asarray(mask)
        if mask.dtype != np.bool_ or mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(f"reset_mask must be {self.num_envs} booleans, at least one of them True, got {mask!r}")
        if not self._started and not mask.all():
            raise ValueError("the first reset must start every slot: leave reset_mask out")
        return np.asarray(mask)


def _batch_dictionaries(infos: Sequence[dict[str, Any]], slots: Slots, num_envs: int) -> Infos:
    """Batch dictionaries, one for each of ``slots``, that may have different keys: numbers become arrays."""
    batched: Infos = {}
    for key in dict.fromkeys(itertools.chain.from_iterable(infos)):
        here = slots[[key in info for info in infos]]
        values = [info[key] for info in infos if key in info]
        number = type(values[0]) in (bool, int, float)
        column = np.array(values) if number else np.fromiter(values, dtype=object, count=len(values))
        batched[key], batched[f"_{key}"] = _spread(column, here, num_envs), _mask(here, num_envs)
    return batched


def _spread(values: npt.NDArray[Any], slots: Slots, num_envs: int) -> npt.NDArray[Any]:
    """Values of ``slots`` as rows of an array for all slots; elsewhere zero or None."""
    if np.array_equal(slots, np.arange(num_envs)):
        return values
    spread = np.full((num_envs, *values.shape[1:]), None if values.dtype == object else 0, dtype=values.dtype)
    spread[slots] = values
    return spread


def _mask(slots: Slots, num_envs: int) -> npt.NDArray[np.bool_]:
    mask = np.zeros(num_envs, dtype=np.bool_)
    mask[slots] = True
    return mask
