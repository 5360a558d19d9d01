"""The environment ``ImageRestore-v0``: image restoration as a sequential decision problem.

Importing this package registers ``ImageRestore-v0`` and its variants (:data:`IDS`);
``gym.make("restore_env:ImageRestore-v0")`` imports it too. PyTorch is imported with the first class that is used.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import gymnasium as gym

if TYPE_CHECKING:
    from restore_env.env import ImageRestoreEnv
    from restore_env.episodes.record import EpisodeRecord
    from restore_env.errors import ImageRestoreError
    from restore_env.images.decoding import ImageError
    from restore_env.task import Task
    from restore_env.toolbox import FunctionTool, Tool, Toolbox
    from restore_env.vector_env import ImageRestoreVectorEnv

__all__ = [
    "IDS",
    "EpisodeRecord",
    "FunctionTool",
    "ImageError",
    "ImageRestoreEnv",
    "ImageRestoreError",
    "ImageRestoreVectorEnv",
    "Task",
    "Tool",
    "Toolbox",
]
__version__ = "0.1.0"

ENV_ID = "ImageRestore-v0"
_LEVELS = {"observation": "spectrum", "flatten": True, "max_steps": 2}
IDS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        ENV_ID: {},
        "ImageRestoreSameSize-v0": {"upscale": (1,)},
        "ImageRestoreLowRes-v0": {"upscale": (4,)},
        "ImageRestorePerceptual-v0": {"upscale": (4,), "reward": "perceptual"},
        "ImageRestorePriced-v0": {"upscale": (1,), "cost_weight": 0.5},
        "ImageRestoreRegions-v0": {"upscale": (1,), "severity": "composite"},
        "ImageRestoreMixedTrain-v0": {"levels": "mixed-train", **_LEVELS},
        "ImageRestoreMixedTest-v0": {"levels": "mixed-test", **_LEVELS},
        "ImageRestorePureTrain-v0": {"levels": "pure-train", **_LEVELS},
        "ImageRestorePureTest-v0": {"levels": "pure-test", **_LEVELS},
    }
)
"""The registered environments, and the arguments in which each differs from the defaults of a :class:`Task`."""

_HOMES = {
    "ImageRestoreEnv": "env",
    "EpisodeRecord": "episodes.record",
    "ImageRestoreError": "errors",
    "ImageError": "images.decoding",
    "Task": "task",
    "FunctionTool": "toolbox",
    "Tool": "toolbox",
    "Toolbox": "toolbox",
    "ImageRestoreVectorEnv": "vector_env",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, when it is asked for: files are found and decoded without PyTorch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"restore_env.{_HOMES[name]}"), name)


def _after_fork() -> None:
    """A forked process has none of OpenMP's threads, but would wait for them."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

for _id, _arguments in IDS.items():
    if _id not in gym.registry:
        gym.register(
            _id,
            entry_point="restore_env.env:ImageRestoreEnv",
            vector_entry_point="restore_env.vector_env:ImageRestoreVectorEnv",
            kwargs=dict(_arguments),
        )
