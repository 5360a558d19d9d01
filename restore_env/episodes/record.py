"""Records of episodes: save as JSON, load, replay and compare."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from restore_env.episodes.batch import EpisodeBatch
from restore_env.errors import ImageRestoreError
from restore_env.images.files import write_atomically
from restore_env.plain_data import FromFile, parse_json
from restore_env.resolve import LevelToolbox, task_factors
from restore_env.task import Task

TOLERANCE_DB = 1e-3
"""Largest difference of a replayed PSNR: rounding depends on machine and batch size."""

_TASK_FIELDS = (
    *("images", "severity", "distortion", "patch_size", "upscale", "max_steps", "stop_if_worse", "toolbox"),
    *("saturation_prob", "draws"),
)
_LEVEL_FIELDS = ("levels", "images", "max_steps", "stop_if_worse", "observation")
_KINDS: dict[str, type | tuple[type, ...]] = {"actions": int, "toolchain": str, "psnr": (int, float), "omitted": str}
_VALUES: dict[str, tuple[type, int]] = {"image": (str, 0), "seed": (int, 2**63), "upscale": (int, 2**16)}
_TASK_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("images", "observation"), (str, list)),
    **dict.fromkeys(("severity", "distortion", "toolbox", "draws", "levels"), (str,)),
    **dict.fromkeys(("patch_size", "max_steps"), (int,)),
    "upscale": (list,),
    "stop_if_worse": (bool,),
    "saturation_prob": (int, float),
}
_MOST = 2**16
"""Actions of an episode, and of the largest patch's pixels a side."""


class RecordError(ImageRestoreError):
    """An episode record that cannot be read or replayed; one line."""


@dataclass(frozen=True)
class ReplayResult:
    """The result of a replay."""

    differences: tuple[str, ...]
    """What the replay gave and the record does not say, one line each."""

    @property
    def okay(self) -> bool:
        """Whether record and replay agree."""
        return not self.differences


@dataclass(frozen=True)
class EpisodeRecord:
    """A finished or running episode as plain values, from which it can be replayed."""

    image: str
    """Which photograph."""
    seed: int
    """``episode_seed``, from which photograph, patch and distortion are drawn; -1 for a pair of the user's own."""
    distortion: Mapping[str, Any]
    """Place and true levels."""
    upscale: int
    """Task factor."""
    actions: tuple[int, ...]
    toolchain: tuple[str, ...]
    """The actions' names."""
    psnr: tuple[float, ...]
    """dB, at the start and after each action."""
    task: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the environment, those that are plain values."""
    omitted: tuple[str, ...] = ()
    """Arguments that JSON cannot hold (a Compose, arrays, a Toolbox object): a replay needs the environment."""

    @classmethod
    def of(cls, episodes: EpisodeBatch, slot: int) -> EpisodeRecord:
        """The record of a slot's episode so far."""
        start = episodes.start(slot)
        arguments, omitted = _plain_arguments(episodes.task)
        return cls(
            image=start.image,
            seed=start.seed,
            distortion=dict(start.distortion),
            upscale=start.factor,
            actions=tuple(episodes.actions[slot]),
            toolchain=episodes.describe(slot)["tools"],
            psnr=tuple(episodes.psnr_trace[slot]),
            task=arguments,
            omitted=omitted,
        )

    def to_json(self) -> str:
        """The record as JSON text."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> EpisodeRecord:
        """Read a record from JSON text.

        Raises:
            RecordError: the text is no record; the message says what is missing.
        """
        values = parse_json(text, "not an episode record", RecordError)
        names = {f.name for f in fields(cls)}
        if not isinstance(values, dict) or not names - {"task", "omitted"} <= values.keys() <= names:
            raise RecordError(f"not an episode record: expected an object with {', '.join(sorted(names))}")
        for name, kind in _KINDS.items():
            items = values.setdefault(name, []) if name == "omitted" else values[name]
            if not isinstance(items, list) or not all(isinstance(item, kind) for item in items):
                raise RecordError(f"not an episode record: {name} is {items!r}")
            values[name] = tuple(items)
        for name, (kind, end) in _VALUES.items():
            if not isinstance(values[name], kind) or (end and not -1 <= values[name] < end):
                raise RecordError(f"not an episode record: {name} is {values[name]!r}")
        if not isinstance(values["distortion"], dict):
            raise RecordError("not an episode record: distortion must be an object")
        actions = values["actions"]
        if not len(actions) < _MOST or not all(0 <= action < _MOST for action in actions):
            raise RecordError(f"not an episode record: actions must be fewer than {_MOST} numbers of 0 or more")
        if len(values["psnr"]) != len(actions) + 1:
            raise RecordError("not an episode record: psnr must have one entry more than actions")
        return cls(**{**values, "task": _checked_task(values.get("task", {}))})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the record as a JSON file, whole or not at all."""
        write_atomically(path, (self.to_json() + "\n").encode())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> EpisodeRecord:
        """Read a record from a JSON file.

        Raises:
            RecordError: the file cannot be read, or holds no record.
        """
        try:
            return cls.from_json(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise RecordError(f"{path}: {error.strerror or error}") from None
        except ValueError as error:
            raise RecordError(f"{path}: {error}") from None

    def validate(
        self, env: gym.Env[Any, Any] | None = None, tolerance: float = TOLERANCE_DB, *, trusted: bool = False
    ) -> ReplayResult:
        """Replay the episode and compare.

        What a record that was read from a file names as ``"package.module:factory"`` is only imported if it is
        ``trusted``, because importing runs code.

        Args:
            env: an environment with the same arguments; None makes one from the record.
            tolerance: largest difference of PSNR, dB.
            trusted: whether the record comes from someone who may run code here.

        Raises:
            ValueError: the record cannot be replayed: the pair was the user's own, its arguments are not usable, or
                they name what would have to be imported.
        """
        if self.seed < 0:
            raise RecordError(
                "the episode started from a pair of the user's own: reset with that pair and compare by hand"
            )
        if env is None and self.omitted:
            raise RecordError(f"the record does not hold {', '.join(self.omitted)}: pass the environment to validate")
        unwrapped: Any = (self._environment(trusted) if env is None else env).unwrapped
        unwrapped.reset(options={"episode_seed": self.seed})
        for step, action in enumerate(self.actions):
            _, _, terminated, _, _ = unwrapped.step(np.int64(action))
            if terminated and step + 1 < len(self.actions):
                return ReplayResult(
                    (f"the replay ended after {step + 1} action(s), the record has {len(self.actions)}",)
                )
        replayed = unwrapped.record()
        differences = [
            f"{name}: recorded {getattr(self, name)!r}, replayed {getattr(replayed, name)!r}"
            for name in ("image", "upscale", "distortion", "toolchain")
            if getattr(self, name) != getattr(replayed, name)
        ]
        differences += [
            f"PSNR after {step} action(s): recorded {before:.4f} dB, replayed {now:.4f} dB"
            for step, (before, now) in enumerate(zip(self.psnr, replayed.psnr, strict=True))
            if not abs(before - now) <= tolerance
        ]
        return ReplayResult(tuple(differences))

    def _environment(self, trusted: bool) -> gym.Env[Any, Any]:
        """An environment with the record's arguments."""
        arguments: dict[str, Any] = {
            name: str(value) if trusted and isinstance(value, str) else value for name, value in self.task.items()
        }
        try:
            return gym.make("ImageRestore-v0", **arguments)
        except (TypeError, OverflowError) as error:  # a list of what it should not hold
            raise RecordError(f"the record's arguments make no environment: {error}") from None


def _checked_task(given: Any) -> dict[str, Any]:
    """The arguments of a record's environment, of known names and kinds; their texts are of a file."""
    if not isinstance(given, dict):
        raise RecordError("not an episode record: task must be an object")
    task: dict[str, Any] = given
    for name, value in task.items():
        if name not in _TASK_KINDS:
            raise RecordError(f"not an episode record: task has {name!r}; it may have {', '.join(_TASK_KINDS)}")
        kinds = _TASK_KINDS[name]
        too_large = isinstance(value, (int, float)) and not 0 <= value <= _MOST
        if value is not None and (not isinstance(value, kinds) or too_large):
            raise RecordError(f"not an episode record: {name} of its task is {value!r}")
    return {name: FromFile(value) if isinstance(value, str) else value for name, value in task.items()}


def _plain_arguments(task: Task) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The task's arguments that JSON can hold (photographs by path), and the names of those that it cannot."""
    names = _TASK_FIELDS if task.levels is None else _LEVEL_FIELDS
    arguments = {name: _plain(getattr(task, name)) for name in names}
    if task.levels is None:
        arguments["upscale"] = list(task_factors(task))
    elif isinstance(task.toolbox, LevelToolbox) and task.toolbox.asked is not None:
        arguments["toolbox"] = task.toolbox.asked
    plain = {name: value for name, value in arguments.items() if value is not _UNKNOWN}
    return plain, tuple(name for name in arguments if name not in plain)


_UNKNOWN = object()


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Sequence):
        items = [_plain(item) for item in value]
        return _UNKNOWN if any(item is _UNKNOWN for item in items) else items
    return _UNKNOWN
