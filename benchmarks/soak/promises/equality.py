"""The same seed gives the same bits: with one and two threads, other processes and hash seeds, single environments.

``python -m benchmarks.soak.promises.equality SINGLE TASK ...`` plays tasks, each JSON, and prints a digest of each.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.soak.targets import write_photographs, write_toolbox

TASKS, SLOTS, STEPS = 8, 4, 4
VARIANTS = (("1", "0", False), ("2", "random", False), ("1", "17", True), ("2", "0", True))
"""Threads, hash seed, and whether each slot has an environment of its own."""


def equal_bits(folder: Path) -> Callable[[int, np.random.Generator], int]:
    """Random tasks, each played in several processes."""
    write_photographs(folder / "photographs")
    write_toolbox(folder / "tools")

    def compare(number: int, rng: np.random.Generator) -> int:
        tasks = [json.dumps(_task(folder, rng)) for _ in range(TASKS)]
        found = [_played(*variant, tasks) for variant in VARIANTS]
        for task, *digests in zip(tasks, *found, strict=True):
            assert len(set(digests)) == 1, f"{task}: {', '.join(digests)}"
        return TASKS

    return compare


def _task(folder: Path, rng: np.random.Generator) -> dict[str, Any]:
    def one_of(*values: Any) -> Any:
        return values[int(rng.integers(len(values)))]

    return {
        "images": str(folder / "photographs"),
        "toolbox": one_of(str(folder / "tools"), "default", "classic"),
        "severity": one_of("mixed", "any", "severe", "single", "composite"),
        "patch_size": one_of(63, 40, 33),
        "observation": one_of("image", "spectrum"),
        "max_steps": one_of(1, 3),
        "dtype": one_of("uint8", "float32"),
        "reward": one_of("psnr", "ssim"),
        "stop_if_worse": one_of(True, False),
        "saturation_prob": one_of(0.0, 0.3),
        "upscale": [1],
        "seed": int(rng.integers(2**31)),
    }


def _played(threads: str, hash_seed: str, single: bool, tasks: list[str]) -> list[str]:
    words = [sys.executable, "-m", __name__, str(int(single)), *tasks]
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "PYTHONHASHSEED": hash_seed}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr[-600:]
    return done.stdout.split()


def digest(task: dict[str, Any], single: bool) -> str:
    """What a task shows and gives, played by a fixed script in one vector environment, or in an environment a slot."""
    from gymnasium.vector import AutoresetMode, SyncVectorEnv

    from restore_env import ImageRestoreEnv, ImageRestoreVectorEnv

    arguments = {**task, "upscale": tuple(task["upscale"])}
    seed = arguments.pop("seed")
    env: Any
    if single:
        env = SyncVectorEnv([lambda: ImageRestoreEnv(**arguments)] * SLOTS, autoreset_mode=AutoresetMode.NEXT_STEP)
    else:
        env = ImageRestoreVectorEnv(SLOTS, **arguments, autoreset_mode=AutoresetMode.NEXT_STEP)
    hashed, rng = hashlib.sha256(), np.random.default_rng(seed)
    shown: list[Any] = [env.reset(seed=seed)[0]]
    for _ in range(STEPS):
        observation, *given, _ = env.step(rng.integers(0, env.single_action_space.n, SLOTS))
        shown += [observation, *given]
    for each in shown:
        parts = [each[key] for key in sorted(each)] if isinstance(each, dict) else [each]
        for part in parts:
            hashed.update(np.ascontiguousarray(part).tobytes())
    env.close()
    return hashed.hexdigest()[:16]


if __name__ == "__main__":
    print(*(digest(json.loads(text), sys.argv[1] == "1") for text in sys.argv[2:]))
