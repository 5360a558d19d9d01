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
from restore_env.images.files import write_atomically
from restore_env.resolve import task_factors
from restore_env.task import Task

TOLERANCE_DB = 1e-3
"""Largest difference of a replayed PSNR: rounding depends on machine and batch size."""

_TASK_FIELDS = (
    *("images", "severity", "distortion", "patch_size", "upscale", "max_steps", "stop_if_worse", "toolbox"),
    *("saturation_prob", "draws"),
)
_LEVEL_FIELDS = ("levels", "images", "max_steps", "stop_if_worse", "observation")
_KINDS: dict[str, type | tuple[type, ...]] = {"actions": int, "toolchain": str, "psnr": (int, float), "omitted": str}


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
            ValueError: the text is no record; the message says what is missing.
        """
        try:
            values = json.loads(text)
        except ValueError as error:
            raise ValueError(f"not an episode record: {error}") from None
        names = {f.name for f in fields(cls)}
        if not isinstance(values, dict) or not names - {"task", "omitted"} <= values.keys() <= names:
            raise ValueError(f"not an episode record: expected an object with {', '.join(sorted(names))}")
        for name, kind in _KINDS.items():
            items = values.setdefault(name, []) if name == "omitted" else values[name]
            if not isinstance(items, list) or not all(isinstance(item, kind) for item in items):
                raise ValueError(f"not an episode record: {name} is {items!r}")
            values[name] = tuple(items)
        if not isinstance(values["seed"], int) or not isinstance(values.get("task", {}), dict):
            raise ValueError("not an episode record: seed must be a whole number, task an object")
        if len(values["psnr"]) != len(values["actions"]) + 1:
            raise ValueError("not an episode record: psnr must have one entry more than actions")
        return cls(**values)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the record as a JSON file, whole or not at all."""
        write_atomically(path, (self.to_json() + "\n").encode())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> EpisodeRecord:
        """Read a record from a JSON file."""
        return cls.from_json(Path(path).read_text())

    def validate(self, env: gym.Env[Any, Any] | None = None, tolerance: float = TOLERANCE_DB) -> ReplayResult:
        """Replay the episode and compare.

        Args:
            env: an environment with the same arguments; None makes one from the record.
            tolerance: largest difference of PSNR, dB.

        Raises:
            ValueError: the record cannot be replayed, because the pair was the user's own.
        """
        if self.seed < 0:
            raise ValueError(
                "the episode started from a pair of the user's own: reset with that pair and compare by hand"
            )
        if env is None and self.omitted:
            raise ValueError(f"the record does not hold {', '.join(self.omitted)}: pass the environment to validate")
        unwrapped: Any = (gym.make("ImageRestore-v0", **self.task) if env is None else env).unwrapped
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


def _plain_arguments(task: Task) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The task's arguments that JSON can hold (photographs by path), and the names of those that it cannot."""
    names = _TASK_FIELDS if task.levels is None else _LEVEL_FIELDS
    arguments = {name: _plain(getattr(task, name)) for name in names}
    if task.levels is None:
        arguments["upscale"] = list(task_factors(task))
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
