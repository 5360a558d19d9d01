"""Environments that run for long, and many that are made and closed: what they leave in memory and elsewhere."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.soak.targets import write_photographs, write_toolbox
from restore_env import FunctionTool, ImageRestoreVectorEnv, Task
from restore_env.levels.building import build_levels

SLOTS = 500
PORTION = 50_000
"""Steps of a case."""
STOPS = 0.01
"""Share of the actions that stop."""
GROWTH = 8 * 2**20
"""Bytes by which the memory may grow after the first case."""
ENVIRONMENTS = 50
"""That a case makes and closes."""

Case = Callable[[int, np.random.Generator], int]


def trivial_tools(folder: Path) -> Case:
    """Steps of tools that do next to nothing."""
    write_photographs(folder / "photographs")
    tools = [FunctionTool("brighten", lambda images: images * 1.01), FunctionTool("keep", lambda images: images)]
    arguments: dict[str, Any] = {"images": str(folder / "photographs"), "toolbox": tools, "patch_size": 8}
    return _playing(ImageRestoreVectorEnv(SLOTS, **arguments, max_steps=25))


def level_set(folder: Path) -> Case:
    """Steps in a level set, some of which it does not hold."""
    images, tools = str(folder / "photographs"), str(folder / "tools")
    write_photographs(folder / "photographs")
    write_toolbox(folder / "tools")
    task = Task(images=images, toolbox=tools, patch_size=40, upscale=(1,))
    build_levels(task, folder / "set", count=20, depth=2)
    arguments: dict[str, Any] = {"levels": folder / "set", "images": images, "observation": "spectrum", "max_steps": 3}
    return _playing(ImageRestoreVectorEnv(SLOTS, **arguments))


def _playing(env: ImageRestoreVectorEnv) -> Case:
    env.reset(seed=0)
    base, stop = 0, len(env.toolbox)

    def play(number: int, rng: np.random.Generator) -> int:
        nonlocal base
        for _ in range(PORTION // SLOTS):
            env.step(np.where(rng.random(SLOTS) < STOPS, stop, rng.integers(0, stop, SLOTS)))
        gc.collect()
        memory = _status("VmRSS")
        base = base or memory
        assert memory - base < GROWTH, f"the memory has grown by {(memory - base) / 2**20:.1f} MiB"
        return PORTION

    return play


def making_and_closing(folder: Path) -> Case:
    """Environments that are made, played and closed."""
    write_photographs(folder / "photographs")
    write_toolbox(folder / "tools")
    base: list[Any] = []
    temporary = folder / "tmp"
    temporary.mkdir()

    def make(number: int, rng: np.random.Generator) -> int:
        before, tempfile.tempdir = tempfile.tempdir, str(temporary)  # in that of all other programs make folders, too
        for each in range(ENVIRONMENTS):
            env = ImageRestoreVectorEnv(
                2 + 6 * (each % 2), images=str(folder / "photographs"), toolbox=str(folder / "tools"), patch_size=40
            )
            env.reset(seed=int(rng.integers(2**31)))
            env.step(np.zeros(env.num_envs, np.int64))
            env.close()
        del env
        gc.collect()
        tempfile.tempdir = before
        left = sorted(path.name for path in temporary.iterdir())
        now = [_status("Threads"), len(list(Path("/proc/self/fd").iterdir())), left]
        base[:] = base or now
        assert now == base, f"threads, open files and temporary folders were {base} and are {now}"
        return ENVIRONMENTS

    return make


def _status(name: str) -> int:
    """A number of the process's status; memory in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    words = next(line for line in lines if line.startswith(f"{name}:")).split()
    return int(words[1]) * (1024 if words[-1] == "kB" else 1)
