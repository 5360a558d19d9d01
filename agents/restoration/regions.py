"""Regions of an image: each tile gets its own tool's result, blended without seams."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from restore_env.episodes.transition import Actions
from restore_env.images.tiling import apply_within, margin_of, tile_side
from restore_env.toolbox import Toolbox

RAMP = 16
"""Pixels over which the result of one tool passes into that of the next, across the border between two tiles."""
_STEPS = 1024  # weights are whole numbers of this part, so that their products and sums are exact in float32

Grid = npt.NDArray[np.bool_]
"""Some of the tiles, ``(rows, columns)``."""
Block = tuple[slice, slice]
"""Tiles that are computed together: rows and columns of the grid."""
Span = tuple[int, int]
"""First pixel and end."""


@dataclass(frozen=True)
class TileAxis:
    """Tiles along one axis of an image, and the window of each."""

    length: int
    """Pixels of the image."""
    starts: tuple[int, ...]
    """First pixel of each tile, ascending."""
    borders: npt.NDArray[np.float64]
    """Where each tile's own part begins and ends, pixels: ``(tiles + 1,)``; between two tiles halfway."""
    windows: Tensor
    """Each tile's share in every pixel, float32 ``(tiles, length)``: raised cosines; the shares of a pixel add up to
    exactly 1."""

    @classmethod
    def of(cls, starts: Sequence[int], size: int, length: int, ramp: int = RAMP) -> TileAxis:
        """Lay windows over tiles.

        Args:
            starts: first pixel of each tile, ascending.
            size: side of a tile.
            length: pixels of the image; it may be less than a tile.
            ramp: pixels over which a window rises.
        """
        first = np.asarray(starts, dtype=np.float64)
        borders = np.array([0, *(first[:-1] + first[1:] + size) / 2, length])
        across = (np.arange(length) + 0.5 - borders[1:-1, None]) / ramp + 0.5
        rising = np.rint((1 - np.cos(np.pi * across.clip(0, 1))) / 2 * _STEPS) / _STEPS
        edges = np.concatenate([np.ones((1, length)), rising, np.zeros((1, length))])
        return cls(length, tuple(starts), borders, torch.from_numpy((edges[:-1] - edges[1:]).astype(np.float32)))

    def extent(self, tiles: slice) -> Span:
        """The pixels in which some tiles have a share."""
        inside = np.flatnonzero(self.windows[tiles].sum(0).numpy())
        return int(inside[0]), int(inside[-1]) + 1


@dataclass(frozen=True)
class TileGrid:
    """Tiles of an image by rows and columns."""

    down: TileAxis
    across: TileAxis

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.down.windows), len(self.across.windows)

    @property
    def count(self) -> int:
        """Number of tiles."""
        return self.shape[0] * self.shape[1]

    def areas(self) -> npt.NDArray[np.float64]:
        """The area of each tile's own part, pixels: ``(rows, columns)``."""
        return np.outer(np.diff(self.down.borders), np.diff(self.across.borders))

    def window(self, tiles: Grid, block: Block) -> tuple[Span, Span, Tensor]:
        """The rows and columns of pixels of a block, and the share of its chosen tiles in each, ``(height, width)``."""
        rows, columns = self.down.extent(block[0]), self.across.extent(block[1])
        chosen = torch.from_numpy(tiles[block].astype(np.float32))
        down, across = self.down.windows[block[0], slice(*rows)], self.across.windows[block[1], slice(*columns)]
        return rows, columns, down.T @ chosen @ across

    def blocks(self, tiles: Grid, margin: int, side: int) -> Iterator[Block]:
        """Cut some tiles into rectangles that are computed each at once.

        A rectangle may hold other tiles too where that takes fewer pixels than two rectangles with a margin each.

        Args:
            tiles: those to compute.
            margin: pixels to compute around a rectangle.
            side: largest side of a rectangle, pixels, as far as a tile is no larger.
        """
        rows, columns = (_parts(axis, side) for axis in (self.down, self.across))
        for row in rows:
            for column in columns:
                yield from self._split(tiles, (row, column), margin)

    def _split(self, tiles: Grid, block: Block, margin: int) -> Iterator[Block]:
        """Cut a block's chosen tiles in two wherever that saves pixels."""
        found = _bounds(tiles, block)
        if found is None:
            return
        rows, columns = found
        least, best = self._pixels(found, margin), None
        cuts = [
            *(((slice(rows.start, at), columns), (slice(at, rows.stop), columns)) for at in _inner(rows)),
            *(((rows, slice(columns.start, at)), (rows, slice(at, columns.stop))) for at in _inner(columns)),
        ]
        for cut in cuts:
            parts = [part for part in (_bounds(tiles, half) for half in cut) if part is not None]
            pixels = sum(self._pixels(part, margin) for part in parts)
            if pixels < least:
                least, best = pixels, parts
        if best is None:
            yield found
            return
        for part in best:
            yield from self._split(tiles, part, margin)

    def _pixels(self, block: Block, margin: int) -> float:
        """Pixels that are computed for a block."""
        sides = []
        for axis, part in zip((self.down, self.across), block, strict=True):
            first, end = float(axis.borders[part.start]), float(axis.borders[part.stop])
            sides.append(min(axis.length, end + margin) - max(0.0, first - margin))
        return sides[0] * sides[1]


def _parts(axis: TileAxis, side: int) -> list[slice]:
    """Cut an axis into about equal parts of tiles, each of ``side`` pixels or little more."""
    count = max(1, round(axis.length / side))
    ideal = np.arange(1, count) * axis.length / count
    inner = [int(np.abs(axis.borders - at).argmin()) for at in ideal]
    edges: list[int] = sorted({0, *inner, len(axis.windows)})
    return [slice(first, end) for first, end in itertools.pairwise(edges)]


def _inner(part: slice) -> range:
    return range(part.start + 1, part.stop)


def _bounds(tiles: Grid, block: Block) -> Block | None:
    """The smallest rectangle that holds a block's chosen tiles; None: there are none."""
    inside = tiles[block]
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if not len(rows):
        return None
    top, left = block[0].start, block[1].start
    return slice(top + rows[0], top + rows[-1] + 1), slice(left + columns[0], left + columns[-1] + 1)


def apply_tools(
    toolbox: Toolbox,
    chosen: Actions,
    image: Tensor,
    grid: TileGrid,
    device: torch.device,
    progress: Callable[[str, float], None],
) -> tuple[Tensor, float]:
    """Give each tile the result of its own tool, blended across the borders between tiles.

    A tool computes the tiles that chose it, and its margin around them.

    Args:
        toolbox: its same-size tools are chosen from.
        chosen: action of each tile, ``(rows, columns)``; ``stop`` leaves it as it is.
        image: float ``(1, 3, H, W)``.
        grid: the tiles.
        device: where tools run.
        progress: called with a tool's name and the completed share of the step.

    Returns:
        A new image, and the computation of the tools where they were chosen, GMAC.
    """
    result, macs, done = torch.zeros_like(image), 0.0, 0
    for action in np.unique(chosen).tolist():
        tiles, tool = chosen == action, None if action == toolbox.stop else toolbox[action]
        blocks: list[Block] = [(slice(0, grid.shape[0]), slice(0, grid.shape[1]))]
        margin = 0 if tool is None else margin_of(tool)
        if margin is not None:
            side = tile_side(toolbox[0] if tool is None else tool, device)
            blocks = list(grid.blocks(tiles, margin, side))
        for number, block in enumerate(blocks, 1):
            rows, columns, weights = grid.window(tiles, block)
            part = image[..., slice(*rows), slice(*columns)]
            if tool is not None:
                part = apply_within(tool, image, rows, columns, device).to(image.device)
                macs += tool.macs_per_pixel * float(weights.sum())
                progress(tool.name, float(done + number / len(blocks) * tiles.sum()) / tiles.size)
            result[..., slice(*rows), slice(*columns)] += weights * part
        done += int(tiles.sum())
    return result, macs / 1e9
