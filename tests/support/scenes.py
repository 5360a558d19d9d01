"""Small labelled scenes that tests of the semantic prior are made with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from sr_models.prior.categories import IGNORE

COLOURS = np.array(
    [
        [120, 120, 120],
        [120, 180, 250],
        [20, 60, 150],
        [90, 200, 60],
        [130, 100, 80],
        [200, 60, 50],
        [20, 90, 30],
        [230, 200, 60],
    ]
)
"""What each category looks like in them, RGB."""


def write_scene(
    folder: Path, name: str, height: int = 40, width: int = 48, seed: int = 0, suffix: str = ".png"
) -> npt.NDArray[np.uint8]:
    """Write a scene of two categories, one above the other, and a few pixels of unknown category; return the ids."""
    rng = np.random.default_rng(seed)
    ids = np.empty((height, width), np.uint8)
    horizon = int(rng.integers(height // 4, 3 * height // 4))
    ids[:horizon], ids[horizon:] = rng.choice(len(COLOURS), 2, replace=False)
    pixels = np.clip(COLOURS[ids] + rng.normal(0, 8, (height, width, 3)), 0, 255).astype(np.uint8)
    ids[:2, :3] = IGNORE
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / "images" / f"{name}{suffix}")
    Image.fromarray(ids).save(folder / "labels" / f"{name}.png")
    return ids


def write_scenes(folder: Path, count: int, height: int = 40, width: int = 48) -> Path:
    """Write some scenes as a labelled folder."""
    for seed in range(count):
        write_scene(folder, f"scene-{seed:02}", height, width, seed)
    return folder
