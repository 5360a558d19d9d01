"""Small level sets for tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2

from restore_env import Task
from restore_env.levels.building import build_levels
from restore_env.toolbox import Toolbox
from tests.support.toolkit import photographs, pixelwise_toolbox

COUNT = 5
TOOLBOX = "tests.support.level_sets:toolbox"
"""What a set names, but is only imported if it is passed, too."""


def toolbox() -> Any:
    """Three exact tools and a super-resolver, each of another computation."""
    tools: Any = enumerate(pixelwise_toolbox(super_resolver=True), start=1)
    return Toolbox([replace(tool, macs_per_pixel=1e3 * number) for number, tool in tools])


def level_task(images: Path | None = None) -> Task:
    """A task that a level set can store: all by name."""
    where = None if images is None else str(images)
    return Task(images=where, severity="any", toolbox=TOOLBOX, upscale=(1, 4), patch_size=40)


def small_levels(folder: Path, **arguments: Any) -> Path:
    """Build a level set of :data:`COUNT` levels."""
    build_levels(level_task(), folder / "levels", **{"count": COUNT, **arguments})
    return folder / "levels"


def write_photographs(folder: Path, count: int = 6) -> Path:
    """A folder of photographs."""
    folder.mkdir()
    for number, pixels in enumerate(photographs(count)):
        cv2.imwrite(str(folder / f"photo{number}.png"), pixels[..., ::-1])
    return folder
