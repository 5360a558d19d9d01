"""Opens what a task names: toolbox, distortion, reward metric and photographs."""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any
from weakref import WeakKeyDictionary

import torch

from restore_env.errors import ImageRestoreError
from restore_env.images.sources import open_images
from restore_env.levels.starts import LevelStarts
from restore_env.levels.store import LevelError, LevelSet, Manifest, open_levels
from restore_env.metrics import METRICS, Metric
from restore_env.plain_data import FromFile
from restore_env.sampling import Compose, StartSampler
from restore_env.task import MAX_STEPS, Task
from restore_env.toolbox import FunctionTool, Toolbox, ToolboxLike

SAME_SIZE_TOOLBOX = "tools_zoo:default_toolbox"
"""The shipped toolbox for tasks whose images all have the target's size."""
DEFAULT_TOOLBOX = "sr_models:default_toolbox"
"""The shipped toolbox for tasks with low-resolution images: the same tools and the super-resolvers."""
NAMED_TOOLBOX = "tools_zoo.toolboxes:load_toolbox"
"""Loads a toolbox by its shipped name or from a folder."""
WITH_BACKEND = "tools_zoo.backends.network_tool:with_backend"
"""Makes a toolbox run on another backend."""
DEFAULT_FACTORS = (1, 4)
"""The upscale factors of the shipped toolbox."""
IMPORTED_METRICS: Mapping[str, str] = MappingProxyType({"perceptual": "sr_models.losses.perceptual:perceptual_quality"})
"""The named rewards that need a network, by import string."""

_TOOLBOXES: WeakKeyDictionary[Task, Toolbox] = WeakKeyDictionary()


def task_factors(task: Task) -> tuple[int, ...]:
    """The upscale factors of a task; where it lists none, those of its tools' scales."""
    if task.upscale is not None:
        return tuple(task.upscale)
    if task.toolbox is None:
        return DEFAULT_FACTORS
    return tuple(sorted({int(scale) for scale in task_toolbox(task).scales}))


def task_toolbox(task: Task) -> Toolbox:
    """The toolbox of a task, on its device and run by its backend; made once for each task.

    Raises:
        ValueError: the task names no toolbox, no backend, or a device that cannot be used.
    """
    if task not in _TOOLBOXES:
        asked = task.toolbox
        if asked is None:
            asked = DEFAULT_TOOLBOX if max(task_factors(task)) > 1 else SAME_SIZE_TOOLBOX
        toolbox = resolve_toolbox(asked, task.device)
        if task.backend is not None:
            toolbox = import_named(WITH_BACKEND, "backend", "a toolbox's")(toolbox, task.backend)
        _TOOLBOXES[task] = toolbox
    return _TOOLBOXES[task]


def task_distortion(task: Task) -> Compose | None:
    """The ``albumentations.Compose`` of a task; None if it distorts by severity.

    Raises:
        ValueError: the task's ``distortion`` is none and names none.
    """
    expected = "an albumentations.Compose, or the 'package.module:factory' of one"
    made, text = task.distortion, "distortion"
    if isinstance(made, str):
        text = f"distortion {made!r}"
        made = import_made(made, "distortion", expected, Compose)
    if made is not None and not isinstance(made, Compose):
        raise ImageRestoreError(f"{text}: expected {expected}, got {made!r}")
    return made


def task_levels(task: Task) -> LevelSet:
    """The level set of a task.

    Raises:
        LevelError: the task names none that can be used.
    """
    if task.levels is None:
        raise LevelError("the task has no level set")
    return open_levels(task.levels)


def complete_task(task: Task) -> Task:
    """The task with the fields that its level set determines.

    Raises:
        LevelError: the set cannot be used, or a field was given another value.
    """
    if task.levels is None or isinstance(task.toolbox, LevelToolbox):
        return task
    manifest = task_levels(task).manifest
    given, determined = Task(), manifest.task_fields()
    for name, value in list(determined.items()):
        asked = getattr(task, name)
        if asked == value:
            del determined[name]  # the caller's own text may be imported, a file's not
        elif asked != getattr(given, name):
            raise LevelError(f"{task.levels}: was computed with {name}={value!r}: leave {name!r} out")
    if task.toolbox not in (None, manifest.toolbox):
        raise LevelError(f"{task.levels}: was computed with toolbox {manifest.toolbox!r}: leave 'toolbox' out")
    if task.max_steps is None:
        determined["max_steps"] = manifest.depth or MAX_STEPS
    path = Path(task.levels)  # absolute: what is not known is computed later, maybe in another folder
    determined["levels"] = path.resolve() if path.exists() else task.levels
    return dataclasses.replace(task, **determined, toolbox=LevelToolbox(task, manifest))


def computed_task(task: Task) -> Task:
    """A completed task without its level set: for computing what the set does not hold."""
    manifest = task_levels(task).manifest
    views = ("image", "spectrum") if manifest.pixels else ("spectrum",)
    images = manifest.images if task.images is None else task.images
    toolbox = task.toolbox.asked if isinstance(task.toolbox, LevelToolbox) else task.toolbox
    return dataclasses.replace(
        task,
        levels=None,
        toolbox=manifest.toolbox if toolbox is None else toolbox,
        images=images,
        observation=views,
        flatten=False,
        dtype="uint8",
    )


class LevelToolbox(Toolbox):
    """The toolbox of a level set, which loads its networks when one has to run.

    Args:
        task: with a level set, not yet completed.
        manifest: what the set was computed with.
    """

    def __init__(self, task: Task, manifest: Manifest) -> None:
        self.asked = task.toolbox
        """The toolbox that the caller passed, if any."""
        self._task = computed_task(task)
        tools = enumerate(zip(manifest.tools, manifest.scales, manifest.macs_per_pixel, strict=True))
        super().__init__(
            [FunctionTool(name, partial(self._run, action), scale, macs) for action, (name, scale, macs) in tools]
        )

    def _run(self, action: int, images: torch.Tensor) -> torch.Tensor:
        return task_toolbox(self._task).run(action, images)


def task_sampler(task: Task) -> StartSampler | LevelStarts:
    """Open a task's photographs, or its level set, and return the sampler that draws episode starts from them.

    Raises:
        ValueError: photographs, a distortion or a severity that cannot be used.
    """
    if task.levels is not None:
        return LevelStarts(task_levels(task))
    compose = task_distortion(task)
    return StartSampler(
        open_images(task.images, min_size=task.patch_size, cache_dir=task.cache_dir),
        task.severity if compose is None else compose,
        patch_size=task.patch_size,
        factors=task_factors(task),
        device=task_toolbox(task).device if task.draws == "device" else None,
        saturation_prob=task.saturation_prob,
    )


def resolve_toolbox(toolbox: ToolboxLike, device: str | torch.device | None = None) -> Toolbox:
    """Turn what a ``toolbox`` argument accepts into a :class:`Toolbox` on ``device``.

    Args:
        toolbox: a toolbox, tools (assumed to be on the CPU), a factory, the import string of a factory,
            ``"package.module:factory"``, the name of a shipped toolbox, or the folder of one.
        device: None leaves a toolbox where it is. A toolbox on another device is copied; the caller's stays.

    Raises:
        ValueError: a string that names nothing, a folder without a toolbox, a factory that fails, or a value that is
            not a toolbox.
    """
    if isinstance(toolbox, os.PathLike) or (isinstance(toolbox, str) and _is_path(toolbox)):
        loaded: Toolbox = import_named(NAMED_TOOLBOX, "toolbox", "a name")(toolbox, device or "cpu")
        return loaded
    if isinstance(toolbox, str):
        expected = "'package.module:factory', a Toolbox, or a list of tools"
        return resolve_toolbox(import_made(toolbox, "toolbox", expected, Toolbox), device)
    if isinstance(toolbox, Toolbox):
        return toolbox.on(device)
    if isinstance(toolbox, Sequence) and not isinstance(toolbox, str):
        return Toolbox(toolbox).on(device)
    made = toolbox() if callable(toolbox) else toolbox
    if not isinstance(made, Toolbox):
        raise ImageRestoreError(f"toolbox: expected a Toolbox, tools, or a factory of one, got {type(made).__name__}")
    return made.on(device)


def _is_path(toolbox: str) -> bool:
    return ":" not in toolbox or Path(toolbox).exists()


def resolve_metric(reward: str | Metric) -> Metric:
    """Return the metric of a name or of an import string, ``"package.module:function"``, or the callable itself.

    Raises:
        ValueError: an unknown name (the message lists the known ones), or an import string that names no function.
    """
    if not isinstance(reward, str):
        if not callable(reward):
            raise ImageRestoreError(f"reward must be a name or a callable (images, targets) -> (N,), got {reward!r}")
        return reward
    if reward in METRICS:
        return METRICS[reward]
    if ":" not in reward and reward not in IMPORTED_METRICS:
        known = ", ".join((*METRICS, *IMPORTED_METRICS))
        raise ImageRestoreError(
            f"unknown reward {reward!r}: choose from {known}, or pass 'package.module:function' or a callable"
        )
    text = IMPORTED_METRICS.get(reward, reward)
    metric: Metric = import_named(text, "reward", "'package.module:function'")
    if not callable(metric):
        raise ImageRestoreError(f"reward {text!r} is no function but {type(metric).__name__}")
    return metric


def import_named(text: str, what: str, expected: str) -> Any:
    """Import the object that an import string, ``"package.module:name"``, names.

    Args:
        text: the import string.
        what: the argument that it is the value of, for error messages.
        expected: what would be right, for error messages.

    Raises:
        ValueError: a string of another form, one that names nothing that can be imported, or one from a data file.
    """
    if isinstance(text, FromFile):
        raise ImageRestoreError(
            f"{what} {text!r} comes from a data file, and nothing is imported because a data file says so: pass it as"
            " an argument if you trust it"
        )
    module, separator, name = text.partition(":")
    if not (module and separator and name):
        raise ImageRestoreError(f"{what} {text!r}: expected {expected}")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError, OSError) as error:
        raise ImageRestoreError(f"{what} {text!r} cannot be imported: {' '.join(str(error).split())}") from None


def import_made(text: str, what: str, expected: str, kinds: type | tuple[type, ...]) -> Any:
    """Import a factory and return what it makes; an object of ``kinds`` that is named directly is returned itself.

    Raises:
        ValueError: as :func:`import_named`, or a factory that fails.
    """
    found = import_named(text, what, expected)
    if not callable(found) or (isinstance(found, kinds) and not isinstance(found, type)):
        return found
    try:
        return found()
    except Exception as error:  # user code may raise anything
        raise ImageRestoreError(f"{what} {text!r}: the factory failed: {type(error).__name__}: {error}") from error
