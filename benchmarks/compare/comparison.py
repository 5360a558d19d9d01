"""One comparison: test sets, metrics, and the results of methods."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from agents.rollout import EpisodeResults
from benchmarks.compare.methods import METHODS, Method, Setting
from benchmarks.compare.photographs import measure_cost, play_photographs
from benchmarks.compare.store import Failure, Results, ResultStore, fingerprint_of
from benchmarks.report.machine import machine_fingerprint
from restore_env import Task
from restore_env.metrics import Metric, ssim
from restore_env.sampling import EpisodeStart
from sr_models.losses.perceptual import perceptual_quality


def perceptual_distance(images: Tensor, targets: Tensor) -> Tensor:
    """The distance of ``sr_models.losses.perceptual`` as a number per image, lower is better."""
    return -perceptual_quality(images, targets)


def metrics_of(factor: int) -> tuple[dict[str, Metric], str]:
    """Metrics besides PSNR for a task, by name; and, if there is no perceptual distance, the reason."""
    if factor == 1:
        return {"ssim": ssim}, ""
    trial = torch.zeros(1, 3, 32, 32)
    try:
        perceptual_distance(trial, trial)
    except (ImportError, OSError, ValueError) as error:
        return {"ssim": ssim}, f"no perceptual distance: {' '.join(str(error).split())}"
    return {"ssim": ssim, "perceptual": perceptual_distance}, ""


def play_patches(
    method: Method,
    task: Task,
    starts: Sequence[EpisodeStart],
    metrics: Mapping[str, Metric] = MappingProxyType({}),
) -> EpisodeResults:
    """Restore patches; computation includes the policy's calls."""
    played = method.evaluated.play(task, starts, metrics)
    calls = np.array([len(chain) for chain in played.actions])
    return replace(played, gmacs=played.gmacs + calls * method.policy_gmacs)


class Comparison:
    """The test sets of a comparison; measures methods on them.

    Args:
        tasks: by severity.
        starts: the distorted images, by severity.
        metrics: besides PSNR.
        photographs: whether ``starts`` are whole photographs.
        costly: a photograph that time and memory are measured on, and its task.
        store: measurements of an earlier run of the same comparison.
    """

    def __init__(
        self,
        tasks: Mapping[str, Task],
        starts: Mapping[str, Sequence[EpisodeStart]],
        metrics: Mapping[str, Metric],
        *,
        photographs: bool,
        costly: tuple[Task, EpisodeStart],
        store: ResultStore,
    ) -> None:
        self._tasks, self._starts, self._metrics = tasks, starts, metrics
        self._photographs, self._costly, self._store = photographs, costly, store
        self._sets = {name: fingerprint_of(drawn, list(metrics)) for name, drawn in starts.items()}

    def measure(self, method: Method) -> Results:
        """Restore everything by one method."""
        own, machine = method.fingerprint(), machine_fingerprint(method.evaluated.toolbox.device)
        results = Results(
            method.name,
            method.title,
            method.parameters,
            method.training,
            method.undertrained,
            method.sees_target,
            played={},
        )
        for severity in self._tasks:
            key = f"{method.name}-{severity}-{own}-{self._sets[severity]}-{machine}"
            played = self._store.load_results(key)
            if played is None:
                played = self._play(method, severity)
                self._store.save_results(key, played)
            results.played[severity] = played
        if not method.sees_target:
            key = f"{method.name}-cost-{own}-{fingerprint_of([self._costly[1]], [])}-{machine}"
            results.cost = self._store.load_cost(key)
            if results.cost is None:
                results.cost = measure_cost(method, *self._costly)
                self._store.save_cost(key, results.cost)
        return results

    def _play(self, method: Method, severity: str) -> EpisodeResults:
        restore = play_photographs if self._photographs else play_patches
        return restore(method, self._tasks[severity], self._starts[severity], self._metrics)


def attempt(name: str, setting: Setting, comparison: Comparison) -> Results | Failure:
    """Make and measure one method; an error is returned and stops no other method."""
    try:
        return comparison.measure(METHODS[setting.factor][name](setting))
    except Exception as error:
        reason = " ".join(str(error).split()).replace(f"{Path.cwd()}{os.sep}", "")
        return Failure(name, reason or type(error).__name__)
