"""The one implementation of an episode's step, for a batch of episodes: what the environments are made of."""

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

Judged = Sequence[tuple[npt.NDArray[np.int64], Tensor, Tensor]]
"""Positions among images, and their reward's metric and PSNR where the images are: a device may still compute them."""


@dataclass(frozen=True)
class PreparedStarts:
    """Starts of episodes made ready, but not in slots yet: :meth:`EpisodeBatch.prepare` makes it."""

    starts: Sequence[EpisodeStart]
    parts: Sequence[tuple[npt.NDArray[np.int64], Tensor, Tensor, npt.NDArray[Any]]]
    """Which starts, their images and targets, and what is observed of them: those of a size together."""
    scores: npt.NDArray[np.float64]
    """Reward's metric, of each start."""
    psnrs: npt.NDArray[np.float64]


class EpisodeBatch:
    """``n`` episodes side by side: working images, targets, chains so far.

    Working images are float32 RGB NCHW, never clipped or quantized between tools.

    Args:
        task: rewards, limits and devices.
        n: number of slots.
    """

    def __init__(self, task: Task, n: int) -> None:
        self.task, self.n, self.toolbox = task, n, task_toolbox(task)
        self.rules = StepRules(self.toolbox, task.max_steps, task.cost_weight, task.stop_if_worse)
        self._metric = resolve_metric(task.reward)
        self._working = ImageBatch(n, self.toolbox.device)
        self._targets = ImageBatch(n, self.toolbox.device)
        self._pool_of_workers = WorkerPool()
        thread_safe = (
            all(getattr(tool, "thread_safe", False) for tool in self.toolbox) and self._metric in METRICS.values()
        )
        self._thread_safe = thread_safe and self.toolbox.device.type == "cpu" and n >= 2 * torch.get_num_threads()
        size = task.patch_size
        self._seen = np.zeros((n, size, size, 3), dtype=task.dtype)
        """The images as they are observed, but for those of slots that ``_changed`` names."""
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
        """Tools and ``stop``."""
        return self.rules.n_actions

    def single_threaded(self) -> AbstractContextManager[None]:
        """While it lasts tools run side by side, each on a core, if there are episodes enough and all tools bear it."""
        return self._pool_of_workers.single_threaded() if self._thread_safe else nullcontext()

    def begin(self, slots: Slots, starts: Sequence[EpisodeStart]) -> None:
        """Start new episodes in ``slots``.

        Raises:
            ValueError: a degraded image is smaller than the observation's patch.
        """
        self.commit(slots, self.prepare(starts))

    @torch.inference_mode()
    def prepare(self, starts: Sequence[EpisodeStart]) -> PreparedStarts:
        """All of :meth:`begin` that can be done before the slots are free; nothing changes.

        Raises:
            ValueError: a degraded image is smaller than the observation's patch.
        """
        for start in starts:
            height, width = start.degraded.shape[:2]
            if min(height, width) < self.task.patch_size:
                raise ValueError(
                    f"{start.image}: {width}x{height} is smaller than a patch of {self.task.patch_size} pixels"
                )
        kinds = [tuple((side.shape, side.dtype) for side in (start.degraded, start.target)) for start in starts]
        parts = []
        judged = []
        for kind in dict.fromkeys(kinds):
            rows = np.array([row for row, other in enumerate(kinds) if other == kind])
            degraded = self._stacked([starts[row].degraded for row in rows])
            targets = self._stacked([starts[row].target for row in rows])
            parts.append((rows, degraded, targets, self._observed(degraded)))
            judged += [
                (rows[here], *self._quality(degraded[here], targets[here])) for here in pieces(len(rows), targets)
            ]
        return PreparedStarts(starts, parts, *_known(judged, len(starts)))

    def commit(self, slots: Slots, beginning: PreparedStarts) -> None:
        """Start the episodes that were made ready in ``slots``, one for each start."""
        for rows, degraded, targets, seen in beginning.parts:
            self._working.put(slots[rows], degraded)
            self._targets.put(slots[rows], targets)
            self._seen[slots[rows]] = seen
        for slot, start, value in zip(slots.tolist(), beginning.starts, beginning.psnrs.tolist(), strict=True):
            self.starts[slot] = start
            self.actions[slot] = []
            self.psnr_trace[slot] = [value]
        self._remaining[slots] = [start.factor for start in beginning.starts]
        self._score[slots] = beginning.scores
        self._changed[slots] = False
        self.last_action[slots] = self.rules.no_action
        self.gmacs[slots] = 0
        self.over[slots] = False

    def ends(self, slots: Slots, actions: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Where an action is sure to end its episode, whatever it does: ``(len(slots),)``.

        With ``stop_if_worse`` others may end, too.

        Raises:
            ValueError: an action that is none of the toolbox's.
        """
        steps = np.array([len(self.actions[slot]) for slot in slots.tolist()])
        return self.rules.is_last(self.rules.checked(actions), steps)

    def step(
        self, slots: Slots, actions: npt.NDArray[np.int64], meanwhile: Iterable[None] = ()
    ) -> npt.NDArray[np.float64]:
        """Carry out one action in each of the ``slots``, update ``over``, and return the rewards ``(len(slots),)``.

        Args:
            slots: whose episodes go on.
            actions: one for each.
            meanwhile: what else is to be done, to the end, while the tools run. Where they run in turn, on this
                thread, its first part is done before them, to set other threads to work, and the rest after them.

        Raises:
            ValueError: an action that is none of the toolbox's.
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
        """The reward that each action would pay now, found by trying every tool: ``(len(slots), n_actions)``.

        0 for ``stop`` and for what the mask forbids. Nothing changes.
        """
        rewards = np.zeros((len(slots), self.n_actions))
        mask = self.action_mask()[slots].astype(bool)
        places: list[tuple[npt.NDArray[np.int64], int]] = []
        jobs: list[Callable[[], npt.NDArray[np.float64]]] = []
        with self.single_threaded():
            for positions in self._working.portions(slots, self._pool_of_workers.count):
                for action in range(len(self.toolbox)):
                    rows = positions[mask[positions, action]]
                    if len(rows):
                        places.append((rows, action))
                        jobs.append(partial(self._worth, action, slots[rows]))
            for (rows, action), worth in zip(places, self._pool_of_workers.run(jobs), strict=True):
                rewards[rows, action] = worth
        return rewards

    def fork(self, slots: Slots) -> EpisodeBatch:
        """A batch of its own whose slot ``i`` goes on from where ``slots[i]`` stands, to try what is then forgotten.

        A slot may be named more than once. Nothing is shared but the starts and the toolbox.
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
        """``(n, n_actions)``: 1 where the action is allowed; a super-resolver must not exceed the target."""
        return self.rules.action_mask(self._remaining)

    def observe(self, slots: Slots) -> Observation:
        """Observations of ``slots``, batched along the first axis; new arrays at each call."""
        changed = slots[self._changed[slots]]
        if len(changed):
            for positions, working in self._working.pieces(changed):
                self._seen[changed[positions]] = self._observed(working)
            self._changed[changed] = False
        return observe(self._seen[slots], self.last_action[slots], self.action_mask()[slots])

    def infos(self, slots: Slots) -> dict[str, list[Any]]:
        """What is known of episodes beyond their observations, a column for each: plain values, for analysis."""
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
        """What :meth:`infos` knows of one episode."""
        return {key: value for key, (value,) in self.infos(np.array([slot])).items()}

    def start(self, slot: int) -> EpisodeStart:
        """What the slot's episode started from."""
        start = self.starts[slot]
        if start is None:
            raise ValueError("no episode has begun: call reset first")
        return start

    def working_image(self, slot: int) -> npt.NDArray[np.uint8]:
        """The working image of a slot as it would be saved: uint8 RGB ``(H, W, 3)``."""
        return _to_rgb8(self._working.image(slot))

    def target_image(self, slot: int) -> npt.NDArray[np.uint8]:
        """The target of a slot, uint8 RGB ``(H, W, 3)``."""
        return _to_rgb8(self._targets.image(slot))

    @torch.inference_mode()
    def quality(self, slots: Slots, metric: Metric) -> npt.NDArray[np.float64]:
        """Any metric of the working images of ``slots`` as they would be shown, ``(len(slots),)``.

        They are clipped to [0, 1], but not rounded, and compared at the targets' size.
        """
        scores = np.zeros(len(slots))
        for positions, working in self._working.groups(slots):
            for rows, targets in self._targets.groups(slots[positions]):
                shown = bicubic_upscale(rows_of(working, rows), targets.shape[-1] // working.shape[-1]).clamp(0, 1)
                scores[positions[rows]] = _checked(metric(shown, targets.clone()), len(rows)).cpu().numpy()
        return scores

    def _stacked(self, images: Sequence[Any]) -> Tensor:
        """Images of one size and type, arrays or tensors drawn on the device, as working images."""
        there = isinstance(images[0], Tensor)
        stacked = (torch.stack(list(images)) if there else torch.from_numpy(np.stack(images))).to(self.toolbox.device)
        nchw = stacked.permute(0, 3, 1, 2).contiguous().float()
        return nchw.div_(255) if stacked.dtype == torch.uint8 else nchw

    def _apply(
        self, slots: Slots, actions: npt.NDArray[np.int64], meanwhile: Iterable[None]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Run the chosen tools; return what each slot spent, GMAC, and reward's metric and PSNR of what came of it."""
        spent = self._spent(slots, actions)
        scores, psnrs = np.zeros(len(slots)), np.zeros(len(slots))
        with self.single_threaded():
            parts: list[tuple[int, npt.NDArray[np.int64]]] = []
            for action in np.unique(actions).tolist():
                rows = np.flatnonzero(actions == action)
                parts += [
                    (action, rows[here]) for here in self._working.portions(slots[rows], self._pool_of_workers.count)
                ]
            parts.sort(key=lambda part: spent[part[1]].sum(), reverse=True)  # so that all cores end at nearly one time
            jobs = [partial(self._act, action, slots[rows]) for action, rows in parts]
            others, running = iter(meanwhile), self._pool_of_workers.run(jobs)
            if self._pool_of_workers.count > 1 and len(jobs) > 1:
                try:
                    deque(others, 0)
                finally:
                    results = list(running)  # whatever happened: no tool is left running
            else:
                next(others, None)
                results = list(running)
                deque(others, 0)
            # with all results at hand: what is put somewhere may move what others still look at
            for (_, rows), (outputs, seen, _) in zip(parts, results, strict=True):
                self._working.put(slots[rows], outputs)
                self._changed[slots[rows]] = seen is None
                if seen is not None:
                    self._seen[slots[rows]] = seen
            for (_, rows), (_, _, judged) in zip(parts, results, strict=True):  # a device has all its work by now
                scores[rows], psnrs[rows] = _known(judged, len(rows))
        self._remaining[slots] = self.rules.remaining_after(self._remaining[slots], actions)
        return spent, scores, psnrs

    @torch.inference_mode()
    def _act(self, action: int, slots: Slots) -> tuple[Tensor, npt.NDArray[Any] | None, Judged]:
        """As :meth:`_use`, and in second place what is observed of it, on a CPU: its core has it at hand."""
        outputs, judged = self._use(action, slots)
        return outputs, self._observed(outputs) if outputs.device.type == "cpu" else None, judged

    @torch.inference_mode()
    def _use(self, action: int, slots: Slots) -> tuple[Tensor, Judged]:
        """What a tool makes of the images of slots, all of one size, and how good that is; nothing is changed."""
        outputs = self.toolbox.run(action, self._working.copies(slots), owned=True)
        return outputs, self._compare(outputs, slots)

    def _worth(self, action: int, slots: Slots) -> npt.NDArray[np.float64]:
        """The reward that a tool would pay for the images of slots, all of one size."""
        spent = self._spent(slots, np.full(len(slots), action))
        scores, _ = _known(self._use(action, slots)[1], len(slots))
        return self.rules.reward(self._score[slots], scores, spent)

    def _spent(self, slots: Slots, actions: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """What actions cost in slots as they are, GMAC."""
        return self.rules.cost(actions, self._working.shapes(slots).prod(axis=1))

    def _observed(self, images: Tensor) -> npt.NDArray[Any]:
        return centre_patch(images, self.task.patch_size, self.task.dtype)

    def _compare(self, images: Tensor, slots: Slots) -> Judged:
        """Images of one size against the targets of ``slots``."""
        judged = []
        for rows, targets in self._targets.pieces(slots):
            judged.append((rows, *self._quality(rows_of(images, rows), targets)))
        return judged

    def _quality(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Reward's metric and PSNR of images of one size against targets of one size, at the targets' size."""
        images = bicubic_upscale(images, targets.shape[-1] // images.shape[-1])
        psnrs = psnr(images, targets)
        if self._metric is psnr:
            return psnrs, psnrs
        return _checked(self._metric(images.clone(), targets.clone()), len(images)), psnrs  # it may change them


def _to_rgb8(image: Tensor) -> npt.NDArray[np.uint8]:
    return np.asarray(to_hwc(quantized(image[None]))[0], dtype=np.uint8)


def _known(judged: Judged, n: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Reward's metric and PSNR of ``n`` images, once they are computed."""
    scores, psnrs = np.zeros(n), np.zeros(n)
    for rows, score, psnr_of in judged:
        psnrs[rows] = psnr_of.cpu().numpy()
        scores[rows] = psnrs[rows] if score is psnr_of else score.cpu().numpy()
    return scores, psnrs


def _checked(scores: Tensor, n: int) -> Tensor:
    scores = torch.as_tensor(scores).detach()
    if tuple(scores.shape) != (n,):
        raise ValueError(f"the reward must return one score per image, shape ({n},), got {tuple(scores.shape)}")
    return scores.to(torch.float64, copy=True)  # the metric may use its tensor again before anyone looks
