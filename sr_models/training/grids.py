"""Sample grids: what a super-resolver makes of a few crops, next to what it was given and what is true."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor

from restore_env.images.decoding import Photo
from restore_env.images.encoding import write_image
from restore_env.images.tiling import to_pixels

GAP = 4


def write_grid(path: str | os.PathLike[str], columns: Sequence[Tensor], rows: int = 6) -> None:
    """Write crops side by side, one row each, as an image; the file appears whole or not at all.

    Args:
        path: PNG or another image format, by the suffix.
        columns: batches ``(N, 3, H, W)`` of one size, float RGB in [0, 1].
        rows: of the batch at most.
    """
    count = min(rows, len(columns[0]))
    height, width = columns[0].shape[-2:]
    grid = torch.ones(1, 3, count * (height + GAP) - GAP, len(columns) * (width + GAP) - GAP)
    for column, batch in enumerate(columns):
        for row in range(count):
            top, left = row * (height + GAP), column * (width + GAP)
            grid[0, :, top : top + height, left : left + width] = batch[row].float().cpu()
    write_image(path, Photo(to_pixels(grid)))
