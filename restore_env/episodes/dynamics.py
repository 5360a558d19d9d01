"""What tools do to the images of episodes: the interface of what computes it or looks it up, and the computation."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from restore_env.compute.worker_pool import PIECE_PIXELS, WorkerPool, one_thread
from restore_env.episodes.image_batch import ImageBatch, Slots, pieces, rows_of
from restore_env.episodes.observation import Observation, Viewer, observation_keys
from restore_env.episodes.transition import Actions
from restore_env.errors import ImageRestoreError, is_out_of_memory
from restore_env.metrics import METRICS, Metric, psnr
from restore_env.resolve import resolve_metric, task_toolbox
from restore_env.sampling import EpisodeStart
from restore_env.task import Task
from restore_env.toolbox import ToolError, bicubic_upscale

Values = npt.NDArray[np.float64]
Scores = Sequence[tuple[npt.NDArray[np.int64], Tensor, Tensor]]
"""Positions of images, their scores by the reward's metric and their PSNR; a device may still be computing them."""


class PreparedStarts(Protocol):
    """Starts of episodes that are loaded and measured, but not yet in slots."""

    @property
    def starts(self) -> Sequence[EpisodeStart]:
        """The starts."""

    @property
    def scores(self) -> Values:
        """Scores by the reward's metric, ``(len(starts),)``."""

    @property
    def psnrs(self) -> Values:
        """PSNR in dB, ``(len(starts),)``."""


class Dynamics(Protocol):
    """The images of ``n`` episodes: how they begin, and what tools do to them."""

    def prepare(self, starts: Sequence[EpisodeStart]) -> PreparedStarts:
        """Load and measure starts for :meth:`commit`, while their slots may still be in use."""

    def commit(self, slots: Slots, prepared: Any) -> None:
        """Put prepared images into ``slots``."""

    def apply(self, slots: Slots, actions: Actions, meanwhile: Iterable[None] = ()) -> tuple[Values, Values]:
        """Apply an allowed tool in each slot; return scores by the reward's metric and PSNR, dB: ``(len(slots),)``.

        Args:
            slots: slots with images.
            actions: a tool for each slot.
            meanwhile: other work, exhausted while the tools run on other threads. Where the tools run on this thread,
                its first part (which may start other threads) comes before them and the rest after them.
        """

    def one_step_scores(self, slots: Slots, mask: npt.NDArray[np.bool_]) -> Values:
        """The score after each tool that ``mask`` allows: ``(len(slots), n_tools)``, elsewhere 0. Nothing changes."""

    def pixels(self, slots: Slots) -> npt.NDArray[np.int64]:
        """Pixels of the images in ``slots``."""

    def views(self, slots: Slots) -> Observation:
        """Views of the images in ``slots`` (:class:`restore_env.episodes.observation.Viewer`), owned by the caller."""

    def images(self, slot: int) -> tuple[Tensor, Tensor]:
        """The working image and the target of a slot, ``(3, H, W)`` each; not to be changed."""

    def quality(self, slots: Slots, metric: Metric) -> Values:
        """A metric of the working images of ``slots``, clipped to [0, 1], at the targets' size: ``(len(slots),)``."""

    def like(self, n: int) -> Dynamics:
        """The same dynamics with ``n`` empty slots."""

    def copy_from(self, slots: Slots, other: Any, theirs: Slots) -> None:
        """Copy the images of another batch's slots."""

    def plain_state(self, slots: Slots) -> list[Any]:
        """What tools have made of the images of ``slots``, as plain values and tensors, for a file."""

    def restore_plain_state(self, slots: Slots, state: list[Any]) -> None:
        """Put back what :meth:`plain_state` gave, where the same starts have been committed."""

    def single_threaded(self) -> AbstractContextManager[None]:
        """Within this context PyTorch uses one thread a tool."""


class RewardError(ToolError):
    """A reward's metric failed, or returned what is no score; one line that names it."""


@dataclass(frozen=True)
class PreparedImages:
    """Starts with their images, loaded and measured."""

    starts: Sequence[EpisodeStart]
    parts: Sequence[tuple[npt.NDArray[np.int64], Tensor, Tensor, Observation]]
    """For each image size: positions in ``starts``, images, targets and views."""
    scores: Values
    psnrs: Values


class PixelDynamics:
    """Runs the tools on working images: float32 RGB, never clipped or quantized between tools.

    Args:
        task: toolbox, reward and observation.
        n: number of slots.

    Raises:
        ValueError: the task names a toolbox or a reward that cannot be used.
    """

    def __init__(self, task: Task, n: int) -> None:
        self._task = task
        self.toolbox, self.n = task_toolbox(task), n
        self.viewer = Viewer(observation_keys(task.observation), task.patch_size, task.dtype)
        self.metric = resolve_metric(task.reward)
        self._working = ImageBatch(n, self.toolbox.device)
        self._targets = ImageBatch(n, self.toolbox.device)
        self._workers = WorkerPool()
        thread_safe = (
            all(getattr(tool, "thread_safe", False) for tool in self.toolbox) and self.metric in METRICS.values()
        )
        on_cpu = self.toolbox.device.type == "cpu"
        self._thread_safe = thread_safe and on_cpu and n >= 2 * torch.get_num_threads()
        self._small = on_cpu and n * task.patch_size**2 <= PIECE_PIXELS
        self._views = self.viewer.empty(n)
        """What is observed; out of date in slots of ``_changed``."""
        self._changed = np.ones(n, dtype=np.bool_)

    def __getstate__(self) -> tuple[Task, int, ImageBatch, ImageBatch]:
        """Task and images; :meth:`__setstate__` opens the rest again."""
        return self._task, self.n, self._working, self._targets

    def __setstate__(self, state: tuple[Task, int, ImageBatch, ImageBatch]) -> None:
        """Open toolbox and reward again."""
        task, n, working, targets = state
        self.__init__(task, n)  # type: ignore[misc]
        self._working, self._targets = working, targets

    def single_threaded(self) -> AbstractContextManager[None]:
        """Run tools in parallel, one a core, if all are thread-safe and the slots suffice; small batches on one core.

        PyTorch splits a layer over threads that wait for each other. In small batches that costs more than it gains.
        """
        if self._thread_safe:
            return self._workers.single_threaded()
        return one_thread() if self._small else nullcontext()

    @torch.inference_mode()
    def prepare(self, starts: Sequence[EpisodeStart]) -> PreparedImages:
        """Load and measure starts.

        Raises:
            ValueError: a distorted image is smaller than the observed patch.
        """
        size = self.viewer.patch_size
        for start in starts:
            height, width = start.distorted.shape[:2]
            if min(height, width) < size:
                raise ValueError(f"{start.image}: {width}x{height} is smaller than a patch of {size} pixels")
        kinds = [tuple((side.shape, side.dtype) for side in (start.distorted, start.target)) for start in starts]
        parts = []
        scores: list[tuple[npt.NDArray[np.int64], Tensor, Tensor]] = []
        with self.single_threaded():
            for kind in dict.fromkeys(kinds):
                rows = np.array([row for row, other in enumerate(kinds) if other == kind])
                distorted = working_images([starts[row].distorted for row in rows], self.toolbox.device)
                targets = working_images([starts[row].target for row in rows], self.toolbox.device)
                parts.append((rows, distorted, targets, self.viewer.views(distorted)))
                for here in pieces(len(rows), targets):
                    with named("", [starts[row].image for row in rows[here]]):
                        scores.append((rows[here], *score_images(self.metric, distorted[here], targets[here])))
        return PreparedImages(starts, parts, *_collect(scores, len(starts)))

    def commit(self, slots: Slots, prepared: PreparedImages) -> None:
        """Put prepared images into ``slots``."""
        for rows, distorted, targets, views in prepared.parts:
            self._working.put(slots[rows], distorted)
            self._targets.put(slots[rows], targets)
            self._set_views(slots[rows], views)

    def apply(self, slots: Slots, actions: Actions, meanwhile: Iterable[None] = ()) -> tuple[Values, Values]:
        """Run the chosen tools, each once on all images with its action."""
        costs = self.toolbox.macs_per_pixel[actions] * self.pixels(slots)
        scores, psnrs = np.zeros(len(slots)), np.zeros(len(slots))
        with self.single_threaded():
            parts: list[tuple[int, npt.NDArray[np.int64]]] = []
            for action in np.unique(actions).tolist():
                rows = np.flatnonzero(actions == action)
                parts += [(action, rows[here]) for here in self._working.portions(slots[rows], self._workers.count)]
            parts.sort(key=lambda part: costs[part[1]].sum(), reverse=True)  # all cores finish at about the same time
            jobs = [partial(self._run_and_view, action, slots[rows]) for action, rows in parts]
            others, running = iter(meanwhile), self._workers.run(jobs)
            if self._workers.count > 1 and len(jobs) > 1:
                try:
                    deque(others, 0)
                finally:
                    results = list(running)  # also after an error: no tool is left running
            else:
                next(others, None)
                results = list(running)
                deque(others, 0)
            for (action, rows), (_, _, part) in zip(parts, results, strict=True):
                scores[rows], psnrs[rows] = _collect(part, len(rows))
                odd = rows[~np.isfinite(psnrs[rows])]
                if len(odd):  # of a device whose tools' outputs are not looked at
                    name = self.toolbox.name(action)
                    raise ToolError(f"slot {slots[odd[0]]}: tool {name!r} returned NaN or infinite values")
            # only after all tools and without any error: putting images changes the episodes
            for (_, rows), (outputs, views, _) in zip(parts, results, strict=True):
                self._working.put(slots[rows], outputs)
                self._set_views(slots[rows], views)
        return scores, psnrs

    def one_step_scores(self, slots: Slots, mask: npt.NDArray[np.bool_]) -> Values:
        """Run every allowed tool on the images of ``slots``."""
        scores = np.zeros(mask.shape)
        places: list[tuple[npt.NDArray[np.int64], int]] = []
        jobs: list[Callable[[], Values]] = []
        with self.single_threaded():
            for positions in self._working.portions(slots, self._workers.count):
                for action in range(len(self.toolbox)):
                    rows = positions[mask[positions, action]]
                    if len(rows):
                        places.append((rows, action))
                        jobs.append(partial(self._tool_scores, action, slots[rows]))
            for (rows, action), values in zip(places, self._workers.run(jobs), strict=True):
                scores[rows, action] = values
        return scores

    def pixels(self, slots: Slots) -> npt.NDArray[np.int64]:
        """Pixels of the images in ``slots``."""
        return np.asarray(self._working.shapes(slots).prod(axis=1))

    def views(self, slots: Slots) -> Observation:
        """Views of the images in ``slots``."""
        changed = slots[self._changed[slots]]
        if len(changed):
            with self.single_threaded():
                for positions, working in self._working.pieces(changed):
                    self._set_views(changed[positions], self.viewer.views(working))
        return {key: values[slots] for key, values in self._views.items()}

    def images(self, slot: int) -> tuple[Tensor, Tensor]:
        """The working image and the target of a slot."""
        return self._working.image(slot), self._targets.image(slot)

    @torch.inference_mode()
    def quality(self, slots: Slots, metric: Metric) -> Values:
        """A metric of the working images of ``slots``, clipped to [0, 1], at the targets' size: ``(len(slots),)``."""
        scores = np.zeros(len(slots))
        for positions, working in self._working.groups(slots):
            for rows, targets in self._targets.groups(slots[positions]):
                images = bicubic_upscale(rows_of(working, rows), targets.shape[-1] // working.shape[-1]).clamp(0, 1)
                scores[positions[rows]] = _measured(metric, images, targets.clone()).cpu().numpy()
        return scores

    def like(self, n: int) -> PixelDynamics:
        """The same dynamics with ``n`` empty slots."""
        return PixelDynamics(self._task, n)

    def copy_from(self, slots: Slots, other: PixelDynamics, theirs: Slots) -> None:
        """Copy the images of another batch's slots."""
        for mine, source in ((self._working, other._working), (self._targets, other._targets)):
            for positions, images in source.groups(theirs):
                mine.put(slots[positions], images)
        self._changed[slots] = True

    def plain_state(self, slots: Slots) -> list[Any]:
        """Positions and working images, for each size."""
        groups = self._working.groups(slots) if len(slots) else ()
        return [[torch.from_numpy(positions), images.cpu().clone()] for positions, images in groups]

    def restore_plain_state(self, slots: Slots, state: list[Any]) -> None:
        """Put the working images back."""
        for positions, images in state:
            self._working.put(slots[positions.numpy()], images)
        self._changed[slots] = True

    def _set_views(self, slots: Slots, views: Observation | None) -> None:
        self._changed[slots] = views is None
        for key, values in (views or {}).items():
            self._views[key][slots] = values

    @torch.inference_mode()
    def _run_and_view(self, action: int, slots: Slots) -> tuple[Tensor, Observation | None, Scores]:
        """As :meth:`_run`, and on a CPU the views, while the outputs are in the core's cache."""
        outputs, scores = self._run(action, slots)
        return outputs, self.viewer.views(outputs) if outputs.device.type == "cpu" else None, scores

    @torch.inference_mode()
    def _run(self, action: int, slots: Slots) -> tuple[Tensor, Scores]:
        """Run a tool on the images of slots, all of one size; return outputs and scores, and change nothing."""
        with named("slot", slots):
            outputs = self.toolbox.run(action, self._working.copies(slots), owned=True)
        scores = []
        for rows, targets in self._targets.pieces(slots):
            with named("slot", slots[rows]):
                scores.append((rows, *score_images(self.metric, rows_of(outputs, rows), targets)))
        return outputs, scores

    def _tool_scores(self, action: int, slots: Slots) -> Values:
        return _collect(self._run(action, slots)[1], len(slots))[0]


def working_images(images: Sequence[Any], device: torch.device) -> Tensor:
    """Turn RGB images of one size and type, arrays or tensors on the device, into float32 NCHW in [0, 1] there."""
    stacked = torch.stack(list(images)) if isinstance(images[0], Tensor) else torch.from_numpy(np.stack(images))
    nchw = stacked.to(device).permute(0, 3, 1, 2).contiguous().float()
    return nchw.div_(255) if stacked.dtype == torch.uint8 else nchw


def score_images(metric: Metric, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Scores by a metric, and PSNR, of images against targets, at the targets' size: ``(N,)`` each, float64.

    Raises:
        RewardError: the metric fails, returns another shape, or a value that is not finite.
    """
    images = bicubic_upscale(images, targets.shape[-1] // images.shape[-1])
    psnrs = psnr(images, targets)
    if metric is psnr:
        return psnrs, psnrs
    return _measured(metric, images.clone(), targets.clone()), psnrs  # a metric may change its inputs


def _collect(parts: Scores, n: int) -> tuple[Values, Values]:
    """Wait for the scores and PSNR of ``n`` images."""
    scores, psnrs = np.zeros(n), np.zeros(n)
    for rows, score, psnr_of in parts:
        psnrs[rows] = psnr_of.cpu().numpy()
        scores[rows] = psnrs[rows] if score is psnr_of else score.cpu().numpy()
    return scores, psnrs


def _measured(metric: Metric, images: Tensor, targets: Tensor) -> Tensor:
    """What a metric gives, checked: ``(N,)`` float64."""
    n, name = len(images), getattr(metric, "__qualname__", repr(metric))
    try:
        given: object = metric(images, targets)
        scores = torch.as_tensor(given).detach()
    except Exception as error:  # a reward of a user may raise anything
        if isinstance(error, ToolError) or is_out_of_memory(error):
            raise
        kind = "" if isinstance(error, ImageRestoreError) else f"{type(error).__name__}: "
        raise RewardError(f"the reward {name} failed: {kind}{error}") from error
    if tuple(scores.shape) != (n,):
        raise RewardError(
            f"the reward must return one score per image, shape ({n},), got {tuple(scores.shape)} of {name}"
        )
    finite = torch.isfinite(scores)
    if not finite.all():
        row = int(torch.nonzero(~finite)[0])
        raise RewardError(f"the reward must return finite scores, got {scores[row].item()} of {name}", row)
    return scores.to(torch.float64, copy=True)  # the metric may reuse its tensor


@contextmanager
def named(kind: str, places: Sequence[Any] | Slots) -> Iterator[None]:
    """Let errors of tools and rewards say where they happened.

    Args:
        kind: a word before each place.
        places: of the images of a batch.
    """
    try:
        yield
    except ToolError as error:
        where = places if error.row is None else [places[error.row]]
        text = ", ".join(dict.fromkeys(f"{kind} {place}".strip() for place in where))
        raise type(error)(f"{text}: {error}") from error.__cause__
