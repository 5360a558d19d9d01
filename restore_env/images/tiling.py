"""Large images in tiles: tools and SSIM with the same result as on the whole image."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from restore_env.compute.memory import retained_memory
from restore_env.images.arrays import BAND, Pixels, quantized
from restore_env.metrics import ssim
from restore_env.toolbox import BICUBIC_X4, Tool, bicubic_upscale, call_tool

TILE_CPU, TILE_GPU = 256, 1024
"""Sides of a tile, pixels. On CPUs the activations of 256x256 fit into the cache: twice as fast as the whole image."""
LARGE_RADIUS, TILE_LARGE_RADIUS = 32, 640
"""On CPUs a same-size tool whose receptive radius is larger than this gets tiles of this side: overlaps are computed
twice, and such tools work at lower resolutions, where 640x640 is not large."""
TILE_IN_PLACE = 512
"""On CPUs the largest side of a tile where memory counts: 170 MiB less than 640, an eighth more time."""

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
    for top in range(0, height, BAND):
        pixels[top : top + BAND] = quantized(image[0, :, top : top + BAND].float()).permute(1, 2, 0).cpu().numpy()
    return pixels


@torch.inference_mode()
def apply_tool(
    tool: Tool,
    image: Tensor,
    device: torch.device | str = "cpu",
    *,
    tile: int | None = None,
    progress: Callable[[float], None] | None = None,
    in_place: bool = False,
) -> Tensor:
    """Run a tool over an image of any size, tile by tile, with bounded memory.

    Each tile is extended by ``tool.receptive_radius`` pixels (rounded up to a multiple of 8), but not beyond the
    image's borders, so that the tool pads only there. The result is that of ``tool(image)``, except for rounding in
    the last bit or two, as libraries use other kernels for other sizes (it is equal for the toolbox's networks in plain
    PyTorch, backend "eager", on the CPU at one number of threads). A tool whose receptive radius is None gets the
    whole image.

    Args:
        tool: the tool.
        image: float32 ``(1, 3, H, W)``; it may stay in main memory while the tool runs elsewhere. Of float16, so is
            the result; the tool gets float32 all the same.
        device: where the tool runs.
        tile: side of a tile in pixels; None: by device. Narrow images get longer tiles of the same area.
        progress: called after each tile with the completed share.
        in_place: write the result of a tool of scale 1 over the image: memory holds one of them.

    Returns:
        ``(1, 3, H * scale, W * scale)`` on the image's device, a new tensor or the image itself.

    Raises:
        ToolError: the tool failed, or returned what no image can be (:func:`restore_env.toolbox.call_tool`).
    """
    device, scale = torch.device(device), tool.scale
    height, width = image.shape[-2:]
    if tool.receptive_radius is None:
        rows, columns = [(0, height)], [(0, width)]
    else:
        side = tile_side(tool, device)
        side = min(side, TILE_IN_PLACE) if in_place and device.type == "cpu" else side
        rows, columns = _cuts_of(height, width, tile or side)
    tiles, halo = list(itertools.product(rows, columns)), margin_of(tool) or 0
    result = image if in_place else image.new_empty(1, 3, height * scale, width * scale)
    # a result is written when no tile needs what it overwrites: in place those are later tiles within the halo
    beyond = [math.ceil(halo / min(end - first for first, end in cuts)) for cuts in (rows, columns)]
    delay = beyond[0] * len(columns) + beyond[1] if in_place else 0
    waiting: deque[tuple[Tensor, Tensor]] = deque()
    if in_place:  # one block: results among the activations would keep freed memory from being used again
        largest = [max(end - first for first, end in cuts) for cuts in (rows, columns)]
        kept = result.new_empty(min(delay + 1, len(tiles)), 3, *largest)
    with retained_memory() if len(tiles) > 1 and device.type == "cpu" else contextlib.nullcontext():
        for done, (down, across) in enumerate(tiles, 1):
            inside = apply_within(tool, image, down, across, device)
            part = result[:, :, down[0] * scale : down[1] * scale, across[0] * scale : across[1] * scale]
            if in_place:
                inside = kept[done % len(kept), None, :, : part.shape[2], : part.shape[3]].copy_(inside)
            waiting.append((part, inside))
            while len(waiting) > (delay if done < len(tiles) else 0):
                written, values = waiting.popleft()
                written.copy_(values)
            if progress is not None:
                progress(done / len(tiles))
    return result


@torch.inference_mode()
def apply_within(
    tool: Tool, image: Tensor, rows: tuple[int, int], columns: tuple[int, int], device: torch.device | str = "cpu"
) -> Tensor:
    """The result of a tool in a window of an image, from the window and :func:`margin_of` around it.

    Args:
        tool: the tool.
        image: float32 ``(1, 3, H, W)``.
        rows: of the window, ``(first, end)``, pixels of the image.
        columns: the same.
        device: where the tool runs.

    Returns:
        ``(1, 3, rows * scale, columns * scale)`` on the device.

    Raises:
        ValueError: the tool returned another shape.
    """
    margin, scale = margin_of(tool), tool.scale
    (top, bottom), (left, right) = rows, columns
    first_row, first_column, last_row, last_column = 0, 0, *image.shape[-2:]
    if margin is not None:
        first_row, first_column = (max(0, start - margin) // _GRID * _GRID for start in (top, left))
        last_row, last_column = bottom + margin, right + margin
    piece = image[:, :, first_row:last_row, first_column:last_column].to(device).float().contiguous()
    output = call_tool(tool, piece, channels=3)
    inside = output[:, :, (top - first_row) * scale :, (left - first_column) * scale :]
    return inside[:, :, : (bottom - top) * scale, : (right - left) * scale]


def margin_of(tool: Tool) -> int | None:
    """Pixels around a window that a tool needs: its receptive radius rounded up to a multiple of 8; None: all."""
    return None if tool.receptive_radius is None else math.ceil(tool.receptive_radius / _GRID) * _GRID


def upscale_bicubic(image: Tensor, factor: int, device: torch.device | str = "cpu") -> Tensor:
    """:func:`restore_env.toolbox.bicubic_upscale` of ``(1, 3, H, W)``, tile by tile; with factor 1 the image itself."""
    if factor == 1:
        return image
    bicubic = replace(BICUBIC_X4, function=lambda piece: bicubic_upscale(piece, factor), scale=factor)
    return apply_tool(bicubic, image, device)


def tile_side(tool: Tool, device: torch.device) -> int:
    """Side of the tiles in which a tool is fast on a device, pixels."""
    if device.type != "cpu":
        return TILE_GPU
    return TILE_LARGE_RADIUS if tool.scale == 1 and (tool.receptive_radius or 0) > LARGE_RADIUS else TILE_CPU


def _cuts_of(height: int, width: int, side: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Rows and columns ``(first, end)`` of tiles of about ``side * side`` pixels.

    A tile holds a quarter of that or more (or the whole image): for few pixels PyTorch uses other kernels, which
    round differently.
    """
    rows = _cuts(height, max(side, side * side // min(width, side)))
    return rows, _cuts(width, max(side, side * side // min(height, side)))


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
