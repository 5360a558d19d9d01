"""Measurements of methods, and a folder that stores them so that an interrupted comparison can continue."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agents.rollout import EpisodeResults
from benchmarks.compare.photographs import Cost
from restore_env.images.files import write_atomically
from restore_env.sampling import EpisodeStart

_ARRAYS = ("initial_psnr", "psnr", "returns", "gmacs")


@dataclass
class Results:
    """The measurements of one method."""

    name: str
    title: str
    parameters: int
    training: str
    undertrained: bool
    sees_target: bool
    played: dict[str, EpisodeResults]
    """By severity."""
    cost: Cost | None = None


@dataclass(frozen=True)
class Failure:
    """A method that failed."""

    name: str
    reason: str
    """One line."""


def fingerprint_of(starts: Iterable[EpisodeStart], metrics: Sequence[str]) -> str:
    """A hash of a test set and its metrics."""
    hashed = hashlib.sha256(",".join(metrics).encode())
    for start in starts:
        hashed.update(f"{start.image}|{start.degraded.shape}|{start.target.shape}".encode())
        hashed.update(np.ascontiguousarray(start.degraded).tobytes())
        hashed.update(np.ascontiguousarray(start.target).tobytes())
    return hashed.hexdigest()[:16]


class ResultStore:
    """A folder of JSON files, one for each measurement; without a folder nothing is stored.

    Args:
        folder: made if it is missing.

    Raises:
        ValueError: there is something else at that place.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError) as error:
                raise ValueError(f"{folder}: no folder, and none can be made there: a file is in its place") from error

    def load_results(self, key: str) -> EpisodeResults | None:
        """The results stored under that key, if any."""
        values = self._load(key)
        if values is None:
            return None
        return EpisodeResults(
            **{name: np.array(values[name], dtype=np.float64) for name in _ARRAYS},
            actions=tuple(tuple(chain) for chain in values["actions"]),
            seconds=float(values["seconds"]),
            images=tuple(values["images"]),
            scores={name: np.array(scores, dtype=np.float64) for name, scores in values["scores"].items()},
        )

    def save_results(self, key: str, played: EpisodeResults) -> None:
        """Store results."""
        values = {name: getattr(played, name).tolist() for name in _ARRAYS}
        scores = {name: scores.tolist() for name, scores in played.scores.items()}
        self._keep(
            key,
            {**values, "actions": played.actions, "seconds": played.seconds, "images": played.images, "scores": scores},
        )

    def load_cost(self, key: str) -> Cost | None:
        """The cost stored under that key, if any."""
        values = self._load(key)
        return None if values is None else Cost(**values)

    def save_cost(self, key: str, cost: Cost) -> None:
        """Store a cost."""
        self._keep(key, asdict(cost))

    def _load(self, key: str) -> Any:
        if self._folder is None or not self._path(key).exists():
            return None
        try:
            return json.loads(self._path(key).read_text())
        except ValueError:
            raise ValueError(f"{self._path(key)}: damaged; delete it to measure again") from None

    def _keep(self, key: str, values: Any) -> None:
        if self._folder is not None:
            write_atomically(self._path(key), json.dumps(values).encode())

    def _path(self, key: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{key}.json"
