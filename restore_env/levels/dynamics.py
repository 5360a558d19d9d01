"""Dynamics by look-up: what is known of a level set is read, what is not is computed once and kept."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from restore_env.episodes.dynamics import PixelDynamics, Values
from restore_env.episodes.image_batch import Slots
from restore_env.episodes.observation import Observation, observation_keys
from restore_env.episodes.spectrum import COMPACT_SIZE
from restore_env.episodes.transition import Actions
from restore_env.images.files import list_images
from restore_env.levels.fingerprint import fingerprint
from restore_env.levels.kept import LIMIT, KeptTransitions, Key, Node
from restore_env.levels.optima import Optima, optima
from restore_env.levels.store import DATABASE, LevelError, LevelSet, PhotographsMissingError
from restore_env.metrics import Metric
from restore_env.resolve import computed_task, task_levels, task_sampler, task_toolbox
from restore_env.sampling import EpisodeStart, StartSampler
from restore_env.task import Task

_START = -1
TOLERANCE_DB = 0.1
"""Largest difference of a start's PSNR from the stored one: noise and JPEG may be another machine's."""


@dataclass(frozen=True)
class PreparedLevels:
    """Starts with the nodes that they begin at."""

    starts: Sequence[EpisodeStart]
    nodes: npt.NDArray[np.int64]
    scores: Values
    psnrs: Values


class LevelDynamics:
    """Looks up what tools do to the images of levels.

    A node is a level and a chain of tools. Nodes of the set's arrays have the number ``level * chains + chain``; those
    that this object has found elsewhere or computed follow.

    Args:
        task: with a level set, completed by :func:`restore_env.resolve.complete_task`.
        n: number of slots.

    Raises:
        LevelError: the set does not hold what the task observes.
    """

    def __init__(self, task: Task, n: int) -> None:
        self._task, self.n = task, n
        self.levels: LevelSet = task_levels(task)
        self._keys = [key for key in ("image", "spectrum") if key in observation_keys(task.observation)]
        if "image" in self._keys and not self.levels.manifest.pixels:
            raise LevelError(
                f'{self.levels.path}: holds no patches: use observation="spectrum", or build the set with --pixels'
            )
        if "image" in self._keys and task.dtype != "uint8":
            raise LevelError(f"{self.levels.path}: holds patches of 8 bits: leave dtype='float32' out")
        if self._task.max_steps > self.levels.tree.depth and not self.levels.manifest.last_observed:
            raise LevelError(
                f"{self.levels.path}: holds no observations after {self.levels.tree.depth} step(s): lower max_steps"
            )
        self._tree, self._stored = self.levels.tree, len(self.levels) * self.levels.tree.size
        observed = [self.levels.arrays[name] for name in self._keys]
        self._columns = [_Column(array) for array in (self.levels.arrays["psnr"], self.levels.score)]
        self._columns += [_Column(array, self._tree.size) for array in observed]
        self._side = self._tree.upscaling(self.levels.scales)
        self._found: dict[tuple[int, int], int] = {}
        """Nodes that are not in the arrays, by the node before and the tool."""
        self._chains: list[Key] = []
        """Level and chain of each of them."""
        folder = self.levels.path if self.levels.path.is_dir() else None
        self._limit = LIMIT // 10 if self.levels.manifest.pixels else LIMIT
        self._kept = KeptTransitions(None if folder is None else folder / DATABASE, self._limit)
        self._nodes = np.full(n, _START, dtype=np.int64)

    def __getstate__(self) -> tuple[Task, int, list[Key | None]]:
        """Task, and level and chain of each slot."""
        return self._task, self.n, [None if node == _START else self._key(node) for node in self._nodes.tolist()]

    def __setstate__(self, state: tuple[Task, int, list[Key | None]]) -> None:
        """Open the level set again."""
        task, n, keys = state
        self.__init__(task, n)  # type: ignore[misc]
        self._nodes[:] = [_START if key is None else self._walk(*key) for key in keys]

    @cached_property
    def optima(self) -> Optima:
        """The exact optima under the task's limits."""
        return optima(self.levels, self._task.max_steps, self._task.cost_weight, self._task.stop_if_worse)

    def single_threaded(self) -> AbstractContextManager[None]:
        """Nothing to do: no tool runs."""
        return nullcontext()

    def prepare(self, starts: Sequence[EpisodeStart]) -> PreparedLevels:
        """Find the starts' nodes."""
        nodes = np.array([start.level for start in starts], dtype=np.int64) * self._tree.size
        return PreparedLevels(starts, nodes, self._column(1, nodes), self._column(0, nodes))

    def commit(self, slots: Slots, prepared: PreparedLevels) -> None:
        """Put prepared starts into ``slots``."""
        if len(self._chains) > self._limit:
            self._forget()
        self._nodes[slots] = prepared.nodes

    def apply(self, slots: Slots, actions: Actions, meanwhile: Iterable[None] = ()) -> tuple[Values, Values]:
        """Move to the nodes after the tools."""
        deque(meanwhile, 0)
        children = self._children(self._nodes[slots], actions)
        self._nodes[slots] = children
        return self._column(1, children), self._column(0, children)

    def one_step_scores(self, slots: Slots, mask: npt.NDArray[np.bool_]) -> Values:
        """Look up every allowed tool."""
        scores = np.zeros(mask.shape)
        rows, actions = np.nonzero(mask)
        scores[rows, actions] = self._column(1, self._children(self._nodes[slots][rows], actions))
        return scores

    def pixels(self, slots: Slots) -> npt.NDArray[np.int64]:
        """Pixels of the images in ``slots``."""
        nodes = self._nodes[slots]
        side = self._side[nodes % self._tree.size]
        for row in np.flatnonzero(nodes >= self._stored).tolist():
            side[row] = np.prod(self.levels.scales[list(self._key(nodes[row])[1])])
        return np.asarray((self._task.patch_size * side) ** 2)

    def views(self, slots: Slots) -> Observation:
        """Views of the images in ``slots``."""
        nodes = self._nodes[slots]
        return {key: self._column(number, nodes) for number, key in enumerate(self._keys, start=2)}

    def images(self, slot: int) -> tuple[Tensor, Tensor]:
        """The working image and the target of a slot, computed again."""
        return self._replayed([self._key(int(self._nodes[slot]))]).images(0)

    def quality(self, slots: Slots, metric: Metric) -> Values:
        """A metric of the working images of ``slots``, computed again."""
        keys = [self._key(node) for node in self._nodes[slots].tolist()]
        return self._replayed(keys).quality(np.arange(len(keys)), metric)

    def like(self, n: int) -> LevelDynamics:
        """The same dynamics with ``n`` empty slots."""
        other = object.__new__(LevelDynamics)
        other.__dict__.update(vars(self))  # shares what has been found
        other.n, other._nodes = n, np.full(n, _START, dtype=np.int64)
        return other

    def copy_from(self, slots: Slots, other: LevelDynamics, theirs: Slots) -> None:
        """Copy the nodes of another batch's slots."""
        if other._chains is self._chains:
            self._nodes[slots] = other._nodes[theirs]
            return
        for slot, node in zip(slots.tolist(), other._nodes[theirs].tolist(), strict=True):
            self._nodes[slot] = node if node < self._stored else self._walk(*other._key(node))

    def plain_state(self, slots: Slots) -> list[Any]:
        """Level and chain of each slot."""
        return [[level, list(chain)] for level, chain in map(self._key, self._nodes[slots].tolist())]

    def restore_plain_state(self, slots: Slots, state: list[Any]) -> None:
        """Go to the nodes of levels and chains."""
        self._nodes[slots] = [self._walk(level, chain) for level, chain in state]

    def _column(self, number: int, nodes: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        return self._columns[number].rows(nodes)

    def _key(self, node: int) -> Key:
        """Level and chain of a node."""
        if node >= self._stored:
            return self._chains[node - self._stored]
        return node // self._tree.size, self._tree.chains[node % self._tree.size]

    def _forget(self) -> None:
        """Drop found nodes but for those that episodes are at."""
        keys = [self._key(node) for node in self._nodes.tolist()]
        self._found, self._chains = {}, []
        self._columns = [_Column(column.array, column.nodes) for column in self._columns]
        self._nodes[:] = [self._walk(*key) for key in keys]

    def _walk(self, level: int, chain: Sequence[int]) -> int:
        node = np.array([level * self._tree.size])
        for tool in chain:
            node = self._children(node, np.array([tool]))
        return int(node[0])

    def _children(self, nodes: npt.NDArray[np.int64], tools: Actions) -> npt.NDArray[np.int64]:
        """The nodes after tools."""
        chains = nodes % self._tree.size
        inner = (nodes < self._stored) & (chains < self._tree.inner)
        children = nodes - chains + chains * self._tree.n_tools + 1 + tools
        outside = np.flatnonzero(~inner).tolist()
        if outside:
            pairs = [(int(nodes[row]), int(tools[row])) for row in outside]
            missing = [pair for pair in dict.fromkeys(pairs) if pair not in self._found]
            if missing:
                self._find(missing)
            children[outside] = [self._found[pair] for pair in pairs]
        return children

    def _find(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Read nodes from the database, compute those that it lacks, and number them."""
        before = [self._key(node) for node, _ in pairs]
        keys = [(level, (*chain, tool)) for (level, chain), (_, tool) in zip(before, pairs, strict=True)]
        nodes: list[Node | None] = self._kept.find(keys)
        unknown = [row for row, node in enumerate(nodes) if node is None]
        if unknown:
            computed = self._computed([keys[row] for row in unknown])
            self._kept.keep([keys[row] for row in unknown], computed)
            for row, node in zip(unknown, computed, strict=True):
                nodes[row] = node
        shape = (self._task.patch_size, self._task.patch_size, 3)
        for pair, key, found in zip(pairs, keys, nodes, strict=True):
            assert found is not None
            if len(found.spectrum) != COMPACT_SIZE or len(found.image) not in (0, math.prod(shape)):
                raise LevelError(f"{self.levels.path / DATABASE}: damaged: delete it")
            self._found[pair] = self._stored + len(self._chains)
            self._chains.append(key)
            parts = {
                "spectrum": np.frombuffer(found.spectrum, np.uint8),
                "image": np.frombuffer(found.image, np.uint8).reshape(shape if found.image else (0,)),
            }
            for column, value in zip(
                self._columns, (found.psnr, found.score, *map(parts.get, self._keys)), strict=True
            ):
                column.append(value)

    def _computed(self, keys: Sequence[Key]) -> list[Node]:
        """Compute nodes from the photographs."""
        pixels = self._replayed([(level, chain[:-1]) for level, chain in keys])
        slots = np.arange(len(keys))
        scores, psnrs = pixels.apply(slots, np.array([chain[-1] for _, chain in keys]))
        views = pixels.views(slots)
        images = views.get("image", np.zeros((len(keys), 0), np.uint8))
        rows = zip(psnrs.tolist(), scores.tolist(), views["spectrum"], images, strict=True)
        return [Node(psnr, score, spectrum.tobytes(), image.tobytes()) for psnr, score, spectrum, image in rows]

    @cached_property
    def _origin(self) -> tuple[Task, StartSampler]:
        """The task without the level set, and its photographs."""
        task = computed_task(self._task)
        names = [Path(name).name for name in self.levels.manifest.photographs]
        if isinstance(task.images, (str, os.PathLike)):  # a folder may hold those of other sets, too
            paths = list_images(task.images)
            if len(paths) > len(names):
                task = replace(task, images=[path for path in paths if path.name in set(names)])
        sampler = task_sampler(task)
        assert isinstance(sampler, StartSampler)
        if [Path(name).name for name in sampler.photographs] != names:
            raise PhotographsMissingError(
                f"{self.levels.path}: what it does not store is computed from its photographs: pass them as images"
            )
        if fingerprint(task_toolbox(task)) != self.levels.manifest.fingerprint:
            raise LevelError(f"{self.levels.path}: was computed with other weights: build it again")
        return task, sampler

    def _replayed(self, keys: Sequence[Key]) -> PixelDynamics:
        """The working images after chains, slot ``i`` for key ``i``."""
        task, sampler = self._origin
        pixels, slots = PixelDynamics(task, len(keys)), np.arange(len(keys))
        levels = [level for level, _ in keys]
        starts = pixels.prepare(list(sampler.starts(self.levels.arrays["seed"][levels].tolist())))
        if np.abs(starts.psnrs - self.levels.arrays["psnr"][levels, 0]).max() > TOLERANCE_DB:
            raise LevelError(f"{self.levels.path}: was computed from other photographs with the same names")
        pixels.commit(slots, starts)
        chains = [chain for _, chain in keys]
        for step in range(max(map(len, chains))):
            going = slots[[len(chain) > step for chain in chains]]
            pixels.apply(going, np.array([chains[slot][step] for slot in going]))
        return pixels


class _Column:
    """Values of all nodes: those of the set's array, then appended ones.

    Args:
        array: ``(levels, nodes, ...)``.
        nodes: of a level; those that the array lacks have values of zero.
    """

    def __init__(self, array: npt.NDArray[Any], nodes: int | None = None) -> None:
        self.array, self._count = array, 0
        self.nodes, self._known = nodes or array.shape[1], array.shape[1]
        self.stored = stored = array.reshape(-1, *array.shape[2:])
        self._more = np.empty((0, *stored.shape[1:]), dtype=stored.dtype)

    def append(self, value: Any) -> None:
        """Add the value of a node."""
        if self._count == len(self._more):
            grown = np.empty((2 * self._count + 64, *self._more.shape[1:]), dtype=self._more.dtype)
            grown[: self._count] = self._more
            self._more = grown
        self._more[self._count] = value
        self._count += 1

    def rows(self, nodes: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """The values of nodes."""
        if self._known < self.nodes:
            levels, chains = np.divmod(nodes, self.nodes)
            values = np.asarray(self.stored[levels * self._known + np.minimum(chains, self._known - 1)])
            values[chains >= self._known] = 0
            return values
        more = nodes >= len(self.stored)
        if not more.any():
            return self.stored[nodes]
        values = np.empty((len(nodes), *self.stored.shape[1:]), dtype=self.stored.dtype)
        values[~more] = self.stored[nodes[~more]]
        values[more] = self._more[nodes[more] - len(self.stored)]
        return values
