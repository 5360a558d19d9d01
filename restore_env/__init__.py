"""The environment ``ImageRestore-v0``: image restoration as a sequential decision problem.

Importing this package registers ``ImageRestore-v0``; ``gym.make("restore_env:ImageRestore-v0")`` imports it too.
"""

from __future__ import annotations

import os

import gymnasium as gym
import torch

from restore_env.env import ImageRestoreEnv
from restore_env.episodes.record import EpisodeRecord
from restore_env.errors import ImageRestoreError
from restore_env.images.decoding import ImageError
from restore_env.task import Task
from restore_env.toolbox import FunctionTool, Tool, Toolbox
from restore_env.vector_env import ImageRestoreVectorEnv

__all__ = [
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

if hasattr(os, "register_at_fork"):  # a forked process has none of OpenMP's threads, but would wait for them
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))

if ENV_ID not in gym.registry:
    gym.register(
        ENV_ID,
        entry_point="restore_env.env:ImageRestoreEnv",
        vector_entry_point="restore_env.vector_env:ImageRestoreVectorEnv",
    )
