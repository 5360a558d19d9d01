"""Replayed episodes on disk: each save adds a file with the episodes since the one before."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents.drqn.buffers import Array, Episode, EpisodeReplayBuffer
from restore_env.images.files import write_atomically

_FILE = "episodes-{}.npz"


class ReplayFiles:
    """The finished episodes of a buffer in a folder.

    Args:
        folder: where they are kept; made when it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: list[tuple[int, int]] = []
        """Numbers of the first episode in each file and of the one after its last, counted since the run began."""

    def save(self, buffer: EpisodeReplayBuffer) -> dict[str, Any]:
        """Write the episodes that have been finished since the last time; return what :meth:`load` needs."""
        first, end = buffer.finished - len(buffer), buffer.finished
        self._files = [(start, stop) for start, stop in self._files if stop > first]
        if not all(self._path(start).exists() for start, _ in self._files):
            self._files.clear()  # someone has deleted them: all are written again
        new = self._files[-1][1] if self._files else first
        if new < end:
            episodes = list(itertools.islice(buffer.episodes, new - first, None))
            self._folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path(new), lambda file: np.savez(file, **packed(episodes)))  # type: ignore[arg-type]
            self._files.append((new, end))
        return {
            "files": [list(numbers) for numbers in self._files],
            "first": first,
            "added": buffer.added,
            "unfinished": {name: torch.from_numpy(array) for name, array in packed(buffer.unfinished).items()},
            "sampling": buffer.rng.bit_generator.state,
        }

    def load(self, buffer: EpisodeReplayBuffer, state: Mapping[str, Any]) -> None:
        """Fill a buffer with what was saved; files of later saves are ignored."""
        self._files = [(int(first), int(end)) for first, end in state["files"]]
        first, episodes = int(state["first"]), list[Episode]()
        for start, end in self._files:
            with np.load(self._path(start), allow_pickle=False) as arrays:
                read = unpacked(arrays)
            if len(read) < end - start:
                raise ValueError(f"{self._path(start)}: {len(read)} episodes, expected {end - start}")
            episodes += read[max(0, first - start) : end - start]
        unfinished = unpacked({name: array.numpy() for name, array in state["unfinished"].items()})
        buffer.fill(episodes, unfinished, added=int(state["added"]), finished=first + len(episodes))
        buffer.rng.bit_generator.state = state["sampling"]

    def prune(self) -> None:
        """Delete files that the latest save does not need."""
        needed = {self._path(first) for first, _ in self._files}
        for path in self._folder.glob(_FILE.format("*")):
            if path not in needed:
                path.unlink(missing_ok=True)

    def _path(self, first: int) -> Path:
        return self._folder / _FILE.format(first)


def packed(episodes: Sequence[Episode]) -> dict[str, Array]:
    """Episodes as arrays, one after the other."""
    steps = [len(episode) for episode in episodes]
    arrays: dict[str, Array] = {
        "steps": np.array(steps, dtype=np.int64),
        "observed": np.array([len(episode.observations) for episode in episodes], dtype=np.int64),
        "terminated": np.array([episode.terminated for episode in episodes], dtype=np.bool_),
        "actions": np.array([action for episode in episodes for action in episode.actions], dtype=np.int64),
        "rewards": np.array([reward for episode in episodes for reward in episode.rewards], dtype=np.float64),
    }
    rows = [row for episode in episodes for row in episode.observations]
    for key in rows[0] if rows else ():
        arrays[f"observation_{key}"] = np.stack([row[key] for row in rows])
    return arrays


def unpacked(arrays: Mapping[str, Array]) -> list[Episode]:
    """The episodes of :func:`packed`."""
    columns = {name.removeprefix("observation_"): arrays[name] for name in arrays if name.startswith("observation_")}
    actions, rewards = arrays["actions"].tolist(), arrays["rewards"].tolist()
    episodes, step, row = [], 0, 0
    for steps, observed, terminated in zip(
        *(arrays[name].tolist() for name in ("steps", "observed", "terminated")), strict=True
    ):
        observations = [{key: column[at] for key, column in columns.items()} for at in range(row, row + observed)]
        episodes.append(Episode(observations, actions[step : step + steps], rewards[step : step + steps], terminated))
        step, row = step + steps, row + observed
    return episodes
