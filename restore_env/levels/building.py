"""Building level sets: every chain up to a depth on every level."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from restore_env.compute.sole_writer import sole_writer
from restore_env.compute.worker_pool import PIECE_PIXELS, WorkerPool, one_thread
from restore_env.episodes.batch import EpisodeBatch
from restore_env.episodes.dynamics import score_images, working_images
from restore_env.episodes.observation import Viewer
from restore_env.images.files import list_images
from restore_env.images.sources import EMBEDDED
from restore_env.levels.fingerprint import fingerprint
from restore_env.levels.store import (
    Array,
    LevelError,
    LevelSet,
    Manifest,
    chunks,
    create,
    distortion_text,
    open_levels,
)
from restore_env.resolve import resolve_metric, task_factors, task_sampler, task_toolbox
from restore_env.sampling import EpisodeStart, StartSampler
from restore_env.task import Task

Split = Literal["all", "train", "test"]
HELD_OUT = 5
"""Every so many photographs, in the order of their names, one is a test photograph."""


def split_images(images: str | os.PathLike[str] | Sequence[str] | None, split: Split) -> list[str]:
    """Paths of the photographs of a split: train and test have no photograph in common.

    Raises:
        LevelError: no photograph is left.
    """
    if images is None:
        raise LevelError(f"the {len(EMBEDDED)} embedded photographs are too few to split: pass images")
    paths = list_images(images) if isinstance(images, (str, os.PathLike)) else images
    ordered = sorted(str(path) for path in paths)
    chosen = [path for number, path in enumerate(ordered) if (number % HELD_OUT == HELD_OUT - 1) == (split == "test")]
    if not chosen:
        raise LevelError(f"{len(ordered)} photographs are too few to split: {HELD_OUT} or more have a test photograph")
    return chosen


def build_levels(
    task: Task,
    out: str | os.PathLike[str],
    *,
    count: int,
    depth: int = 2,
    seed: int = 0,
    pixels: bool = False,
    last_observed: bool = True,
    beyond: bool = False,
    portable: bool = True,
    report: Callable[[int, int], None] = lambda done, count: None,
) -> LevelSet:
    """Draw levels and run every chain of at most ``depth`` tools on each.

    Interrupted at any moment, it goes on where it was. Each level's photograph, place and distortion follow from its
    seed alone.

    Args:
        task: photographs, distortion, toolbox and reward. Those that are objects, not names, cannot be stored.
        out: folder to write to; a level set with the same settings is completed.
        count: number of levels.
        depth: length of the chains.
        seed: from which the levels' seeds are drawn.
        pixels: store the observed patches, too: 12 kB a chain and level more, with patches of 63 pixels.
        last_observed: store what is observed after the last step, too: no policy needs it, and it is most of the set.
        beyond: store a step more, after the best chain of full length: what every tool gains there.
        portable: the set must hold all that is needed to compute more: a task of objects, not names, cannot be stored.
        report: is called with the number of levels that are built, and of all.

    Raises:
        LevelError: the task cannot be stored, or the folder holds another set.
        BusyError: another process is building there.
    """
    sampler = task_sampler(task)
    assert isinstance(sampler, StartSampler)
    manifest = _manifest(task, sampler.photographs, count, depth, seed, pixels, last_observed, beyond, portable)
    out = Path(out)
    with sole_writer(out):
        arrays = create(out, manifest)
        seeds = np.random.default_rng(seed).choice(2**53, size=count, replace=False)
        builder = _Builder(task, sampler, manifest, arrays)
        missing = np.flatnonzero(~arrays["complete"]).tolist()
        report(count - len(missing), count)
        for levels in chunks(missing, builder.together):
            builder.build(levels, seeds[levels].tolist())
            missing_now = int((~arrays["complete"]).sum())
            report(count - missing_now, count)
    return open_levels(out)


class _Builder:
    def __init__(self, task: Task, sampler: StartSampler, manifest: Manifest, arrays: dict[str, Array]) -> None:
        self._toolbox, self._metric = task_toolbox(task), resolve_metric(task.reward)
        self._sampler, self._arrays, self._beyond = sampler, arrays, manifest.beyond
        keys = ("image", "spectrum") if manifest.pixels else ("spectrum",)
        self._longer = replace(
            task,
            max_steps=manifest.depth + 1,
            observation=keys,
            flatten=False,
            dtype="uint8",
            cost_weight=0.0,
            stop_if_worse=False,
        )
        self._tree, self._observed = manifest.tree, manifest.observed
        self._viewer = Viewer(keys, task.patch_size, "uint8")
        self._piece = max(1, PIECE_PIXELS // task.patch_size**2)
        self._workers = WorkerPool()
        safe = all(getattr(tool, "thread_safe", False) for tool in self._toolbox) and task.reward in ("psnr", "ssim")
        self._parallel = safe and self._toolbox.device.type == "cpu"
        self.together = self._piece * max(2, torch.get_num_threads())
        """Levels that are built at once."""

    def build(self, levels: Sequence[int], seeds: Sequence[int]) -> None:
        """Build levels; each is marked as complete when all of it is written."""
        starts = list(self._sampler.starts(list(seeds)))
        groups: list[list[int]] = []
        for factor in self._sampler.factors:
            groups += [
                list(rows) for rows in chunks([r for r, s in enumerate(starts) if s.factor == factor], self._piece)
            ]
        jobs = [partial(self._build, [levels[r] for r in rows], [starts[r] for r in rows]) for rows in groups]
        with self._workers.single_threaded() if self._parallel else one_thread():
            for _ in self._workers.run(jobs):
                pass
        if self._beyond:
            self._store_beyond(list(levels), starts)
        self._arrays["complete"][levels] = True

    @torch.inference_mode()
    def _build(self, levels: list[int], starts: list[EpisodeStart]) -> None:
        device = self._toolbox.device
        images = working_images([start.distorted for start in starts], device)
        targets = working_images([start.target for start in starts], device)
        for name, values in (
            ("seed", [start.seed for start in starts]),
            ("photograph", [start.index for start in starts]),
            ("upscale", [start.factor for start in starts]),
            ("distortion", [distortion_text(start.distortion) for start in starts]),
        ):
            self._arrays[name][levels] = values
        for name in ("psnr", "score"):
            if name in self._arrays:
                self._arrays[name][levels] = np.nan
        self._visit(levels, 0, images, targets)

    def _store_beyond(self, levels: list[int], starts: list[EpisodeStart]) -> None:
        """Store what is known of the step after each level's best chain of full length."""
        arrays, tree = self._arrays, self._tree
        score = arrays.get("score", arrays["psnr"])[levels, tree.inner :]
        best = tree.inner + np.where(np.isnan(score), -np.inf, score).argmax(axis=1)
        chains = np.array([tree.chains[number] for number in best.tolist()])
        episodes, slots = EpisodeBatch(self._longer, len(levels)), np.arange(len(levels))
        episodes.reset(slots, starts)
        for actions in chains.T:
            episodes.step(slots, actions)
        arrays["beyond_chain"][levels] = best
        gains, allowed = episodes.one_step_rewards(slots)[:, :-1], episodes.action_mask()[:, :-1].astype(bool)
        arrays["beyond_gain"][levels] = np.where(allowed, gains, np.nan)
        for name, values in episodes.dynamics.views(slots).items():
            arrays[f"beyond_{name}"][levels] = values

    def _visit(self, levels: list[int], node: int, images: Tensor, targets: Tensor) -> None:
        """Store what is known of a chain's results, and go on with each allowed tool."""
        score, psnr = score_images(self._metric, images, targets)
        self._arrays["psnr"][levels, node] = psnr.cpu().numpy()
        if "score" in self._arrays:
            self._arrays["score"][levels, node] = score.cpu().numpy()
        if node < self._observed:
            for name, values in self._viewer.views(images).items():
                self._arrays[name][levels, node] = values
        if node >= self._tree.inner:
            return
        remaining = targets.shape[-1] // images.shape[-1]
        for tool in np.flatnonzero(remaining % self._toolbox.scales == 0).tolist():
            outputs = self._toolbox.run(tool, images)
            self._visit(levels, node * self._tree.n_tools + 1 + tool, outputs, targets)


def _manifest(
    task: Task,
    photographs: list[str],
    count: int,
    depth: int,
    seed: int,
    pixels: bool,
    last_observed: bool,
    beyond: bool,
    portable: bool,
) -> Manifest:
    """The manifest of a set that is going to be built."""
    for name, least in (("count", 1), ("depth", 0)):
        if {"count": count, "depth": depth}[name] < least:
            raise LevelError(f"{name} must be {least} or more, got {count if name == 'count' else depth}")
    fields: dict[str, Any] = {
        name: getattr(task, name)
        for name in ("severity", "distortion", "patch_size", "reward", "saturation_prob", "draws", "backend")
    }
    images = task.images
    if isinstance(images, (str, os.PathLike)):
        images = _absolute(images)
    elif images is not None:
        images = [_absolute(item) for item in images]
    toolbox = task_toolbox(task)
    manifest = Manifest(
        count=count,
        depth=depth,
        seed=seed,
        tools=list(toolbox.names),
        scales=toolbox.scales.tolist(),
        macs_per_pixel=toolbox.macs_per_pixel.tolist(),
        fingerprint=fingerprint(toolbox),
        photographs=photographs,
        images=images,
        pixels=pixels,
        last_observed=last_observed,
        beyond=beyond,
        toolbox=_absolute(task.toolbox),
        upscale=list(task_factors(task)),
        **fields,
    )
    for name, value in vars(manifest).items():
        if _is_plain(value):
            continue
        if not portable:
            plain: dict[str, Any] = {name: None if name in ("toolbox", "images") else repr(value)}
            manifest = replace(manifest, **plain)
        else:
            raise LevelError(f"{name} must be given by name or path to be stored, got {value!r:.80}")
    return manifest


def _absolute(value: Any) -> Any:
    """The absolute path of a path that exists; other values as they are."""
    is_path = isinstance(value, os.PathLike) or (isinstance(value, str) and Path(value).exists())
    return str(Path(value).resolve()) if is_path else value


def _is_plain(value: Any) -> bool:
    """Whether JSON can hold a value."""
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (str, int, float, bool))


def resplit(task: Task, split: Split) -> Task:
    """The task on the photographs of a split."""
    if split == "all":
        return task
    return replace(task, images=split_images(task.images, split))  # type: ignore[arg-type]
