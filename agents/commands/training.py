"""What the training commands share: their photographs and what they show while they run."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

    from restore_env.sources import ImageSource


def clean_photographs(arguments: argparse.Namespace, min_size: int) -> ImageSource:
    """Open what ``--images`` names; raise ``ValueError`` if these are pairs."""
    from restore_env.sources import ImageSource, open_images

    source = open_images(arguments.images, min_size=min_size, cache_dir=arguments.cache_dir)
    if not isinstance(source, ImageSource):
        raise ValueError("tools are trained on clean photographs, not on pairs")
    return source


def step_display() -> Progress:
    """A live display of rows with a name, a bar, steps, and a field ``quality``."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description:<10}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} steps"),
        TextColumn("{task.fields[quality]}"),
        TimeElapsedColumn(),
    )
