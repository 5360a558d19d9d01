"""Large images in tiles: tools and SSIM with the same result as on the whole image."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from restore_env.images.arrays import Pixels, quantized
from restore_env.metrics import ssim
from restore_env.toolbox import BICUBIC_X4, Tool, bicubic_upscale

TILE_CPU, TILE_GPU = 256, 1024
"""Sides of a tile, pixels. On CPUs the activations of 256x256 fit into the cache: twice as fast as the whole image."""
LARGE_RADIUS, TILE_LARGE_RADIUS = 32, 512
"""On CPUs a same-size tool whose receptive radius is larger than this gets tiles of this side: overlaps are computed
twice, and such tools work at lower resolutions, where 512x512 is small."""

_GRID = 8  # cuts lie on multiples of it, for tools that work on blocks of 2, 4 or 8 pixels
_SSIM_CONTEXT = 10
_SSIM_TILE = 96  # windows along a side; four times as fast as large tiles


def tile_starts(length: int, size: int, borders: bool = True) -> list[int]:
    """Starts of tiles of ``size`` along a length: side by side, and with ``borders`` a last one that ends at its end.

    A length shorter than a tile has one, at 0.
    """
    starts = list(range(0, length - size + 1, size)) or [0]
    if borders and length > size and starts[-1] + size < length:
        starts.append(length - size)
    return starts


def to_tensor(pixels: npt.NDArray[np.uint8] | npt.NDArray[np.float32]) -> Tensor:
    """RGB ``(H, W, 3)``, uint8 or float32 in [0, 1], as float32 ``(1, 3, H, W)`` in [0, 1]; always a copy."""
    planes = torch.from_numpy(np.array(pixels.transpose(2, 0, 1)[None], dtype=np.float32, order="C"))
    return planes.div_(255) if pixels.dtype == np.uint8 else planes


def to_pixels(image: Tensor) -> Pixels:
    """Float ``(1, 3, H, W)``, clipped and rounded to uint8 RGB ``(H, W, 3)``."""
    _, _, height, width = image.shape
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    for top in range(0, height, TILE_GPU):
        band = quantized(image[0, :, top : top + TILE_GPU])
        pixels[top : top + TILE_GPU] = band.permute(1, 2, 0).cpu().numpy()
    return pixels


@torch.inference_mode()
def apply_tool(
    tool: Tool,
    image: Tensor,
    device: torch.device | str = "cpu",
    *,
    tile: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> Tensor:
    """Run a tool over an image of any size, tile by tile, with bounded memory.

    Each tile is extended by ``tool.receptive_radius`` pixels (rounded up to a multiple of 8), but not beyond the
    image's borders, so that the tool pads only there. The result is that of ``tool(image)``, except for rounding in
    the last bit or two, as libraries use other kernels for other sizes (it is equal for the toolbox's networks in plain
    PyTorch, backend "eager", on the CPU at one number of threads). A tool whose receptive radius is None gets the
    whole image.

    Args:
        tool: the tool.
        image: float32 ``(1, 3, H, W)``; it may stay in main memory while the tool runs elsewhere.
        device: where the tool runs.
        tile: side of a tile in pixels; None: by device. Narrow images get longer tiles of the same area.
        progress: called after each tile with the completed share.

    Returns:
        ``(1, 3, H * scale, W * scale)``, a new tensor on the image's device.

    Raises:
        ValueError: the tool returned another shape.
    """
    device = torch.device(device)
    height, width = image.shape[-2:]
    if tool.receptive_radius is None:
        tiles, halo = [((0, height), (0, width))], 0
    else:
        tiles = list(_tiles(height, width, tile or _side(tool, device)))
        halo = math.ceil(tool.receptive_radius / _GRID) * _GRID
    scale = tool.scale
    result = image.new_empty(1, 3, height * scale, width * scale)
    for done, ((top, bottom), (left, right)) in enumerate(tiles, 1):
        first_row, first_column = max(0, top - halo), max(0, left - halo)
        piece = image[:, :, first_row : bottom + halo, first_column : right + halo].to(device).contiguous()
        expected = (1, 3, piece.shape[2] * scale, piece.shape[3] * scale)
        output = tool(piece)
        if tuple(output.shape) != expected:
            raise ValueError(f"tool {tool.name!r} returned shape {tuple(output.shape)}, expected {expected}")
        inside = output[:, :, (top - first_row) * scale :, (left - first_column) * scale :]
        part = result[:, :, top * scale : bottom * scale, left * scale : right * scale]
        part.copy_(inside[:, :, : part.shape[2], : part.shape[3]])
        if progress is not None:
            progress(done / len(tiles))
    return result


def upscale_bicubic(image: Tensor, factor: int, device: torch.device | str = "cpu") -> Tensor:
    """:func:`restore_env.toolbox.bicubic_upscale` of ``(1, 3, H, W)``, tile by tile; with factor 1 the image itself."""
    if factor == 1:
        return image
    bicubic = replace(BICUBIC_X4, function=lambda piece: bicubic_upscale(piece, factor), scale=factor)
    return apply_tool(bicubic, image, device)


def _side(tool: Tool, device: torch.device) -> int:
    if device.type != "cpu":
        return TILE_GPU
    return TILE_LARGE_RADIUS if tool.scale == 1 and (tool.receptive_radius or 0) > LARGE_RADIUS else TILE_CPU


def _tiles(height: int, width: int, side: int) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Rows and columns ``(first, end)`` of tiles of about ``side * side`` pixels.

    A tile holds a quarter of that or more (or the whole image): for few pixels PyTorch uses other kernels, which
    round differently.
    """
    rows = _cuts(height, max(side, side * side // min(width, side)))
    columns = _cuts(width, max(side, side * side // min(height, side)))
    return itertools.product(rows, columns)


def _cuts(length: int, side: int) -> list[tuple[int, int]]:
    """Cut a length into equal parts of ``side`` or less, at multiples of 8."""
    parts = math.ceil(length / side)
    inner = [min(length, math.ceil(length * part / parts / _GRID) * _GRID) for part in range(1, parts)]
    edges = sorted({0, *inner, length})
    return list(itertools.pairwise(edges))


@torch.inference_mode()
def ssim_in_tiles(pixels: Pixels, target: Pixels) -> float | None:
    """:func:`restore_env.metrics.ssim` of one image of any size, tile by tile; None if it is too small for it.

    Args:
        pixels: uint8 RGB ``(H, W, 3)``.
        target: the same shape.
    """
    # where the window can lie, by its first row and column
    rows, columns = int(pixels.shape[0]) - _SSIM_CONTEXT, int(pixels.shape[1]) - _SSIM_CONTEXT
    if rows < 1 or columns < 1:
        return None
    total = 0.0
    for top in range(0, rows, _SSIM_TILE):
        for left in range(0, columns, _SSIM_TILE):
            bottom, right = min(rows, top + _SSIM_TILE), min(columns, left + _SSIM_TILE)
            window = slice(top, bottom + _SSIM_CONTEXT), slice(left, right + _SSIM_CONTEXT)
            total += float(ssim(to_tensor(pixels[window]), to_tensor(target[window]))) * (bottom - top) * (right - left)
    return total / (rows * columns)
