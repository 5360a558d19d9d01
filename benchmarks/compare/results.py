"""Test sets, and what methods achieve on them; kept in a folder, so that an interrupted comparison can continue."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agents.rollout import EpisodeResults
from benchmarks.compare.method import Method
from benchmarks.compare.photographs import Cost, measure_cost, play_photographs
from benchmarks.report.machine import machine_fingerprint
from restore_env import Task
from restore_env.images.files import write_atomically
from restore_env.metrics import Metric
from restore_env.sampling import EpisodeStart


@dataclass(frozen=True)
class Results:
    """The measurements of one method."""

    method: Method
    played: Mapping[str, EpisodeResults]
    """By severity."""
    cost: Cost | None = None
    """None for methods that see the target."""


@dataclass(frozen=True)
class Failure:
    """A method that failed."""

    name: str
    reason: str
    """One line."""


@dataclass(frozen=True)
class Comparison:
    """The test sets of a comparison."""

    tasks: Mapping[str, Task]
    """By severity."""
    starts: Mapping[str, Sequence[EpisodeStart]]
    """The distorted images, by severity."""
    metrics: Mapping[str, Metric]
    """Besides PSNR."""
    photographs: bool
    """Whether ``starts`` are whole photographs."""
    costly: tuple[Task, EpisodeStart]
    """A photograph that time and memory are measured on, and its task."""
    cache: Path | None = None
    """Folder of measurements; what an earlier run of the same comparison measured is read from it."""

    def measure(self, method: Method) -> Results:
        """Restore everything by one method.

        Raises:
            ValueError: a damaged file in the cache.
        """
        path = None if self.cache is None else self.cache / f"{method.name}-{self._fingerprint(method)}.json"
        if path is not None and path.exists():
            return _read(path, method)
        restore = play_photographs if self.photographs else Method.play
        played = {
            severity: restore(method, task, self.starts[severity], self.metrics)
            for severity, task in self.tasks.items()
        }
        cost = None if method.sees_target else measure_cost(method, *self.costly)
        results = Results(method, played, cost)
        if path is not None:
            values = {"played": {name: asdict(part) for name, part in played.items()}, "cost": cost and asdict(cost)}
            write_atomically(path, json.dumps(values, default=np.ndarray.tolist).encode())
        return results

    def _fingerprint(self, method: Method) -> str:
        """A hash of the method, the test sets, the metrics and the machine."""
        facts = (method.fingerprint(), machine_fingerprint(method.toolbox.device), *self.metrics, *self.starts)
        hashed = hashlib.sha256("|".join(facts).encode())
        for start in (*(start for starts in self.starts.values() for start in starts), self.costly[1]):
            hashed.update(f"{start.image}|{start.distorted.shape}|{start.target.shape}".encode())
            hashed.update(np.ascontiguousarray(start.distorted).tobytes())
            hashed.update(np.ascontiguousarray(start.target).tobytes())
        return hashed.hexdigest()[:16]


def make_cache(folder: Path | None) -> None:
    """Make the folder of measurements.

    Raises:
        ValueError: there is something else at that place.
    """
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise ValueError(f"{folder}: no folder, and none can be made there: a file is in its place") from error


def _read(path: Path, method: Method) -> Results:
    try:
        values: dict[str, Any] = json.loads(path.read_text())
    except ValueError:
        raise ValueError(f"{path}: damaged; delete it to measure again") from None
    for part in values["played"].values():
        part["scores"] = {name: np.array(scores) for name, scores in part["scores"].items()}
        part |= {name: np.array(part[name]) for name in ("initial_psnr", "psnr", "returns", "gmacs")}
    played = {name: EpisodeResults(**part) for name, part in values["played"].items()}
    return Results(method, played, values["cost"] and Cost(**values["cost"]))
