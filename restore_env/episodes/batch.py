"""Batches of episodes: the state and the step that both environments share."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from restore_env.compute.worker_pool import WorkerPool
from restore_env.episodes.image_batch import ImageBatch, Slots, pieces, rows_of
from restore_env.episodes.observation import Observation, centre_patch, observe
from restore_env.episodes.transition import StepRules
from restore_env.images.arrays import quantized, to_hwc
from restore_env.metrics import METRICS, Metric, psnr
from restore_env.resolve import resolve_metric, task_toolbox
from restore_env.sampling import EpisodeStart
from restore_env.task import Task
from restore_env.toolbox import bicubic_upscale

Scores = Sequence[tuple[npt.NDArray[np.int64], Tensor, Tensor]]
"""Positions of images, their scores by the reward's metric and their PSNR; a device may still be computing them."""


@dataclass(frozen=True)
class PreparedStarts:
    """Starts of episodes that :meth:`EpisodeBatch.prepare` has loaded and measured, but not put into slots."""

    starts: Sequence[EpisodeStart]
    parts: Sequence[tuple[npt.NDArray[np.int64], Tensor, Tensor, npt.NDArray[Any]]]
    """For each image size: positions in ``starts``, images, targets and observed patches."""
    scores: npt.NDArray[np.float64]
    """Scores by the reward's metric, ``(len(starts),)``."""
    psnrs: npt.NDArray[np.float64]
    """PSNR in dB, ``(len(starts),)``."""


class EpisodeBatch:
    """The state of ``n`` episodes and their common step.

    Each slot holds one episode: its working image (float32 RGB, never clipped or quantized between tools), its target
    and its toolchain so far.

    Args:
        task: toolbox, reward, limits and devices.
        n: number of slots.

    Raises:
        ValueError: the task names a toolbox or a reward that cannot be used.
    """

    def __init__(self, task: Task, n: int) -> None:
        self.task, self.n, self.toolbox = task, n, task_toolbox(task)
        self.rules = StepRules(self.toolbox, task.max_steps, task.cost_weight, task.stop_if_worse)
        self._metric = resolve_metric(task.reward)
        self._working = ImageBatch(n, self.toolbox.device)
        self._targets = ImageBatch(n, self.toolbox.device)
        self._workers = WorkerPool()
        thread_safe = (
            all(getattr(tool, "thread_safe", False) for tool in self.toolbox) and self._metric in METRICS.values()
        )
        self._thread_safe = thread_safe and self.toolbox.device.type == "cpu" and n >= 2 * torch.get_num_threads()
        size = task.patch_size
        self._observed = np.zeros((n, size, size, 3), dtype=task.dtype)
        """Observed images; those of slots in ``_changed`` are out of date."""
        self._changed = np.ones(n, dtype=np.bool_)
        self._score = np.zeros(n)
        self._remaining = np.ones(n, dtype=np.int64)
        self.starts: list[EpisodeStart | None] = [None] * n
        self.actions: list[list[int]] = [[] for _ in range(n)]
        self.psnr_trace: list[list[float]] = [[] for _ in range(n)]
        self.last_action = np.full(n, self.rules.no_action, dtype=np.int64)
        self.gmacs = np.zeros(n)
        self.over = np.ones(n, dtype=np.bool_)

    @property
    def n_actions(self) -> int:
        """Number of actions: the tools and ``stop``."""
        return self.rules.n_actions

    def single_threaded(self) -> AbstractContextManager[None]:
        """Run tools in parallel, one per core, within this context, if all are thread-safe and the slots suffice."""
        return self._workers.single_threaded() if self._thread_safe else nullcontext()

    def reset(self, slots: Slots, starts: Sequence[EpisodeStart]) -> None:
        """Start new episodes in ``slots``, one for each start.

        Raises:
            ValueError: a distorted image is smaller than the observed patch.
        """
        self.commit(slots, self.prepare(starts))

    @torch.inference_mode()
    def prepare(self, starts: Sequence[EpisodeStart]) -> PreparedStarts:
        """Load and measure starts for :meth:`commit`, while their slots may still be in use.

        Raises:
            ValueError: a distorted image is smaller than the observed patch.
        """
        for start in starts:
            height, width = start.degraded.shape[:2]
            if min(height, width) < self.task.patch_size:
                raise ValueError(
                    f"{start.image}: {width}x{height} is smaller than a patch of {self.task.patch_size} pixels"
                )
        kinds = [tuple((side.shape, side.dtype) for side in (start.degraded, start.target)) for start in starts]
        parts = []
        scores: list[tuple[npt.NDArray[np.int64], Tensor, Tensor]] = []
        for kind in dict.fromkeys(kinds):
            rows = np.array([row for row, other in enumerate(kinds) if other == kind])
            degraded = self._stacked([starts[row].degraded for row in rows])
            targets = self._stacked([starts[row].target for row in rows])
            parts.append((rows, degraded, targets, self._observe_images(degraded)))
            scores += [
                (rows[here], *self._score_images(degraded[here], targets[here])) for here in pieces(len(rows), targets)
            ]
        return PreparedStarts(starts, parts, *_collect(scores, len(starts)))

    def commit(self, slots: Slots, prepared: PreparedStarts) -> None:
        """Start prepared episodes in ``slots``, one for each start."""
        for rows, degraded, targets, observed in prepared.parts:
            self._working.put(slots[rows], degraded)
            self._targets.put(slots[rows], targets)
            self._observed[slots[rows]] = observed
        for slot, start, value in zip(slots.tolist(), prepared.starts, prepared.psnrs.tolist(), strict=True):
            self.starts[slot] = start
            self.actions[slot] = []
            self.psnr_trace[slot] = [value]
        self._remaining[slots] = [start.factor for start in prepared.starts]
        self._score[slots] = prepared.scores
        self._changed[slots] = False
        self.last_action[slots] = self.rules.no_action
        self.gmacs[slots] = 0
        self.over[slots] = False

    def ends(self, slots: Slots, actions: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Whether each action certainly ends its episode, ``(len(slots),)``; ``stop_if_worse`` may end others, too.

        Raises:
            ValueError: an action that does not exist.
        """
        steps = np.array([len(self.actions[slot]) for slot in slots.tolist()])
        return self.rules.is_last(self.rules.checked(actions, len(slots)), steps)

    def step(
        self, slots: Slots, actions: npt.NDArray[np.int64], meanwhile: Iterable[None] = ()
    ) -> npt.NDArray[np.float64]:
        """Carry out one action in each of the ``slots``, update ``over``, and return the rewards ``(len(slots),)``.

        Args:
            slots: slots whose episodes are not over.
            actions: one for each slot.
            meanwhile: other work, exhausted while the tools run on other threads. Where the tools run on this thread,
                its first part (which may start other threads) comes before them and the rest after them.

        Raises:
            ValueError: an action that does not exist.
        """
        ends, actions = self.ends(slots, actions), np.asarray(actions)
        allowed = self.action_mask()[slots, actions].astype(bool)
        acting = np.flatnonzero(allowed & (actions != self.toolbox.stop))
        spent, scores, psnrs = self._apply(slots[acting], actions[acting], meanwhile)
        rewards = np.zeros(len(slots))
        rewards[acting] = self.rules.reward(self._score[slots[acting]], scores, spent)
        self._score[slots[acting]] = scores
        self.gmacs[slots[acting]] += spent
        self.last_action[slots] = actions
        self.over[slots] = ends
        chosen = slots.tolist()
        latest = np.array([self.psnr_trace[slot][-1] for slot in chosen])
        latest[acting] = psnrs
        for slot, action, value in zip(chosen, actions.tolist(), latest.tolist(), strict=True):
            self.actions[slot].append(action)
            self.psnr_trace[slot].append(value)
            if self.rules.has_failed(value, self.psnr_trace[slot][0]):
                self.over[slot] = True
        return rewards

    def one_step_rewards(self, slots: Slots) -> npt.NDArray[np.float64]:
        """The reward of each action now, by running every tool: ``(len(slots), n_actions)``.

        0 for ``stop`` and for masked actions. The episodes stay as they are.
        """
        rewards = np.zeros((len(slots), self.n_actions))
        mask = self.action_mask()[slots].astype(bool)
        places: list[tuple[npt.NDArray[np.int64], int]] = []
        jobs: list[Callable[[], npt.NDArray[np.float64]]] = []
        with self.single_threaded():
            for positions in self._working.portions(slots, self._workers.count):
                for action in range(len(self.toolbox)):
                    rows = positions[mask[positions, action]]
                    if len(rows):
                        places.append((rows, action))
                        jobs.append(partial(self._tool_rewards, action, slots[rows]))
            for (rows, action), values in zip(places, self._workers.run(jobs), strict=True):
                rewards[rows, action] = values
        return rewards

    def fork(self, slots: Slots) -> EpisodeBatch:
        """Copy episodes into a new batch: its slot ``i`` continues the episode of ``slots[i]``.

        A slot may be listed more than once. The batches share only the starts and the toolbox.
        """
        branch = EpisodeBatch(self.task, len(slots))
        for mine, theirs in ((self._working, branch._working), (self._targets, branch._targets)):
            for positions, images in mine.groups(slots):
                theirs.put(positions, images)
        branch._score, branch._remaining = self._score[slots], self._remaining[slots]
        branch.last_action, branch.gmacs, branch.over = self.last_action[slots], self.gmacs[slots], self.over[slots]
        branch.starts = [self.starts[slot] for slot in slots]
        branch.actions = [list(self.actions[slot]) for slot in slots]
        branch.psnr_trace = [list(self.psnr_trace[slot]) for slot in slots]
        return branch

    def action_mask(self) -> npt.NDArray[np.int8]:
        """1 where an action is allowed: ``(n, n_actions)``."""
        return self.rules.action_mask(self._remaining)

    def observe(self, slots: Slots) -> Observation:
        """Observations of ``slots``, batched along the first axis; the caller owns the arrays."""
        changed = slots[self._changed[slots]]
        if len(changed):
            for positions, working in self._working.pieces(changed):
                self._observed[changed[positions]] = self._observe_images(working)
            self._changed[changed] = False
        return observe(self._observed[slots], self.last_action[slots], self.action_mask()[slots])

    def infos(self, slots: Slots) -> dict[str, list[Any]]:
        """Infos of ``slots`` as lists of plain values, one list per key (see "Information" of the environment)."""
        chosen = slots.tolist()
        starts = [self.start(slot) for slot in chosen]
        names = self.toolbox.name
        return {
            "psnr": [self.psnr_trace[slot][-1] for slot in chosen],
            "initial_psnr": [self.psnr_trace[slot][0] for slot in chosen],
            "toolchain": [tuple(map(names, self.actions[slot])) for slot in chosen],
            "gmacs": self.gmacs[slots].tolist(),
            "upscale": [start.factor for start in starts],
            "image": [start.image for start in starts],
            "episode_seed": [start.seed for start in starts],
            "distortion": [dict(start.distortion) for start in starts],
        }

    def info(self, slot: int) -> dict[str, Any]:
        """The info of one slot."""
        return {key: value for key, (value,) in self.infos(np.array([slot])).items()}

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
        return _to_rgb8(self._working.image(slot))

    def target_image(self, slot: int) -> npt.NDArray[np.uint8]:
        """The target of a slot, uint8 RGB ``(H, W, 3)``."""
        return _to_rgb8(self._targets.image(slot))

    @torch.inference_mode()
    def quality(self, slots: Slots, metric: Metric) -> npt.NDArray[np.float64]:
        """A metric of the working images of ``slots``, clipped to [0, 1], at the targets' size: ``(len(slots),)``."""
        scores = np.zeros(len(slots))
        for positions, working in self._working.groups(slots):
            for rows, targets in self._targets.groups(slots[positions]):
                images = bicubic_upscale(rows_of(working, rows), targets.shape[-1] // working.shape[-1]).clamp(0, 1)
                scores[positions[rows]] = _checked(metric(images, targets.clone()), len(rows)).cpu().numpy()
        return scores

    def _stacked(self, images: Sequence[Any]) -> Tensor:
        """Turn images of one size and type, arrays or tensors on the device, into working images."""
        on_device = isinstance(images[0], Tensor)
        stacked = (torch.stack(list(images)) if on_device else torch.from_numpy(np.stack(images))).to(
            self.toolbox.device
        )
        nchw = stacked.permute(0, 3, 1, 2).contiguous().float()
        return nchw.div_(255) if stacked.dtype == torch.uint8 else nchw

    def _apply(
        self, slots: Slots, actions: npt.NDArray[np.int64], meanwhile: Iterable[None]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Run the chosen tools and return, for each slot, GMACs, score by the reward's metric and PSNR, dB."""
        spent = self._spent(slots, actions)
        scores, psnrs = np.zeros(len(slots)), np.zeros(len(slots))
        with self.single_threaded():
            parts: list[tuple[int, npt.NDArray[np.int64]]] = []
            for action in np.unique(actions).tolist():
                rows = np.flatnonzero(actions == action)
                parts += [(action, rows[here]) for here in self._working.portions(slots[rows], self._workers.count)]
            parts.sort(key=lambda part: spent[part[1]].sum(), reverse=True)  # all cores finish at about the same time
            jobs = [partial(self._run_and_observe, action, slots[rows]) for action, rows in parts]
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
            # only after all tools: putting images may move those that another tool still reads
            for (_, rows), (outputs, observed, _) in zip(parts, results, strict=True):
                self._working.put(slots[rows], outputs)
                self._changed[slots[rows]] = observed is None
                if observed is not None:
                    self._observed[slots[rows]] = observed
            for (_, rows), (_, _, part) in zip(parts, results, strict=True):  # waits for the device, so it comes last
                scores[rows], psnrs[rows] = _collect(part, len(rows))
        self._remaining[slots] = self.rules.remaining_after(self._remaining[slots], actions)
        return spent, scores, psnrs

    @torch.inference_mode()
    def _run_and_observe(self, action: int, slots: Slots) -> tuple[Tensor, npt.NDArray[Any] | None, Scores]:
        """As :meth:`_run`, and on a CPU the observed patches, while the outputs are in the core's cache."""
        outputs, scores = self._run(action, slots)
        return outputs, self._observe_images(outputs) if outputs.device.type == "cpu" else None, scores

    @torch.inference_mode()
    def _run(self, action: int, slots: Slots) -> tuple[Tensor, Scores]:
        """Run a tool on the images of slots, all of one size; return outputs and scores, and change nothing."""
        outputs = self.toolbox.run(action, self._working.copies(slots), owned=True)
        return outputs, [
            (rows, *self._score_images(rows_of(outputs, rows), targets))
            for rows, targets in self._targets.pieces(slots)
        ]

    def _tool_rewards(self, action: int, slots: Slots) -> npt.NDArray[np.float64]:
        """The reward of a tool for the images of slots, all of one size."""
        spent = self._spent(slots, np.full(len(slots), action))
        scores, _ = _collect(self._run(action, slots)[1], len(slots))
        return self.rules.reward(self._score[slots], scores, spent)

    def _spent(self, slots: Slots, actions: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """GMACs of actions in slots."""
        return self.rules.cost(actions, self._working.shapes(slots).prod(axis=1))

    def _observe_images(self, images: Tensor) -> npt.NDArray[Any]:
        return centre_patch(images, self.task.patch_size, self.task.dtype)

    def _score_images(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Scores by the reward's metric and PSNR of images against targets, at the targets' size."""
        images = bicubic_upscale(images, targets.shape[-1] // images.shape[-1])
        psnrs = psnr(images, targets)
        if self._metric is psnr:
            return psnrs, psnrs
        return _checked(
            self._metric(images.clone(), targets.clone()), len(images)
        ), psnrs  # a metric may change its inputs


def _to_rgb8(image: Tensor) -> npt.NDArray[np.uint8]:
    return np.asarray(to_hwc(quantized(image[None]))[0], dtype=np.uint8)


def _collect(parts: Scores, n: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Wait for the scores and PSNR of ``n`` images."""
    scores, psnrs = np.zeros(n), np.zeros(n)
    for rows, score, psnr_of in parts:
        psnrs[rows] = psnr_of.cpu().numpy()
        scores[rows] = psnrs[rows] if score is psnr_of else score.cpu().numpy()
    return scores, psnrs


def _checked(scores: Tensor, n: int) -> Tensor:
    scores = torch.as_tensor(scores).detach()
    if tuple(scores.shape) != (n,):
        raise ValueError(f"the reward must return one score per image, shape ({n},), got {tuple(scores.shape)}")
    return scores.to(torch.float64, copy=True)  # the metric may reuse its tensor
