"""The protocol's distortions for many patches at once, as PyTorch operations on any device.

The distribution is that of :mod:`restore_env.distortions.protocol`, and a seed gives the same photograph, place and
levels. Two things differ. The noise is another sample: each value is a function of the seed and its position, so it
does not depend on which patches are drawn together. JPEG is computed in floating point by the formulas that libjpeg's
integers approximate (T.81; 4:2:0, chroma upsampled by libjpeg's triangle filter), so a few pixels differ by a grey
level or two. Tested on CPUs; it has not been run on a GPU yet.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor
from torch.nn import functional as F

from restore_env.distortions.crop import Crop
from restore_env.distortions.mixed import Distortion
from restore_env.distortions.protocol import BLUR_RADIUS, CHROMA_RADIUS, CUBIC_SUPPORT, MCU, Levels
from restore_env.distortions.saturation import apply_curve
from restore_env.images.arrays import Pixels

_BLOCK = 8
_GOLDEN, _MIX_1, _MIX_2 = -7046029254386353131, -4658895280553007687, -7723592293110705685  # SplitMix64's, as int64

_TO_YCC = ((0.299, 0.587, 0.114), (-0.168735892, -0.331264108, 0.5), (0.5, -0.418687589, -0.081312411))
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136286, -0.714136286), (1.0, 1.772, 0.0))


def distort_crops(
    crops: Sequence[Crop], distortions: Sequence[Distortion], noise_seeds: Sequence[int], device: str | torch.device
) -> Tensor:
    """Distort many patches of one size: the protocol's distortions on the device, others on the host.

    Args:
        crops: the patches, of one size and factor.
        distortions: of each patch.
        noise_seeds: an int64 for each patch.
        device: where to compute, and where the result is.

    Returns:
        uint8 RGB ``(len(crops), size, size, 3)``.
    """
    size = crops[0].size
    patches = torch.empty((len(crops), size, size, 3), dtype=torch.uint8, device=device)
    here = [row for row, one in enumerate(distortions) if isinstance(one, Levels)]
    if here:
        levels = [one for one in distortions if isinstance(one, Levels)]
        rows = torch.tensor(here, device=device)
        patches[rows] = _distort_levels([crops[r] for r in here], levels, [noise_seeds[r] for r in here], device)
    for row, (crop, one, seed) in enumerate(zip(crops, distortions, noise_seeds, strict=True)):
        if not isinstance(one, Levels):
            patches[row] = torch.from_numpy(crop.distorted(one, np.random.default_rng(seed))).to(device)
    return patches


@torch.inference_mode()
def _distort_levels(
    crops: Sequence[Crop], levels: Sequence[Levels], noise_seeds: Sequence[int], device: str | torch.device
) -> Tensor:
    """Distort many patches of one size: blur, downscaling by their factor, noise, and JPEG with the photograph's grid.

    Only each patch's clean surroundings, as bytes, are copied to the device.

    Args:
        crops: the patches, of one size and factor.
        levels: strengths of each patch's distortion.
        noise_seeds: an int64 for each patch.
        device: where to compute.

    Returns:
        uint8 RGB ``(len(crops), size, size, 3)`` on the device.
    """
    size, factor = crops[0].size, crops[0].factor
    shrunk_radius = CUBIC_SUPPORT if factor > 1 else 0
    coded = -(-(MCU - 1 + 2 * CHROMA_RADIUS + size) // MCU) * MCU  # room for the patch at any phase of the grid
    starts = np.array([[max(0, (at - CHROMA_RADIUS) // MCU * MCU) for at in (c.top, c.left)] for c in crops])
    offsets = np.array([[c.top, c.left] for c in crops]) - starts
    limits = np.array([[c.image.shape[0] // factor, c.image.shape[1] // factor] for c in crops])
    sources = np.stack(
        [
            apply_curve(_surroundings(crop.image, start, limit * factor, coded, shrunk_radius, factor), crop.curve)
            for crop, start, limit in zip(crops, starts, limits, strict=True)
        ]
    )
    strengths = torch.tensor([[one.blur_sigma, one.noise_sigma, one.jpeg_quality] for one in levels], device=device)
    images = torch.from_numpy(sources).to(device).permute(0, 3, 1, 2).float().div_(255)
    images = blur_patches(images, strengths[:, 0])
    on_device = [torch.from_numpy(array).to(device) for array in (starts, limits, offsets)]
    begin, limit, offset = on_device
    if factor > 1:
        images = _shrink(images, begin - shrunk_radius, limit, factor)
    seeds = torch.tensor(noise_seeds, dtype=torch.int64, device=device)
    noise = gaussian_field(seeds, images[0].numel()).reshape(images.shape)
    images = images + noise * (strengths[:, 1] / 255).reshape(-1, 1, 1, 1)
    values = images.mul_(255).round_().clamp_(0, 255)
    inside = torch.arange(coded, device=device)
    last = (limit - begin - 1).clamp_(max=coded - 1)
    rows, columns = (torch.minimum(inside, last[:, axis, None]) for axis in (0, 1))  # an encoder repeats the edge
    coded_values = jpeg_patches(_pick(values, rows, columns), strengths[:, 2], last + 1)
    values = torch.where(strengths[:, 2].reshape(-1, 1, 1, 1) > 0, coded_values, values)
    window = torch.arange(size, device=device)
    patches = _pick(values, offset[:, 0, None] + window, offset[:, 1, None] + window)
    return patches.to(torch.uint8).permute(0, 2, 3, 1)


def blur_patches(images: Tensor, sigmas: Tensor) -> Tensor:
    """Blur each of ``(N, 3, H, W)`` by its own sigma, 21x21: ``(N, 3, H - 20, W - 20)``; sigma 0 only crops.

    Computed as products with banded matrices: their rounding does not depend on the other images of the batch, and no
    device uses reduced precision for them by default.
    """
    height, width = images.shape[-2:]
    away = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, device=images.device, dtype=torch.float64)
    weights = torch.exp(-(away**2) / (2 * sigmas.double().clamp(min=1e-3).square()[:, None]))
    weights = weights / weights.sum(1, keepdim=True)

    def banded(length: int) -> Tensor:
        matrix = weights.new_zeros(len(weights), length - 2 * BLUR_RADIUS, length)
        for tap in range(2 * BLUR_RADIUS + 1):
            matrix.diagonal(tap, 1, 2).copy_(weights[:, tap, None])
        return matrix.float()[:, None]

    return banded(height) @ images @ banded(width).transpose(-1, -2)


def gaussian_field(seeds: Tensor, count: int) -> Tensor:
    """Standard normal values ``(len(seeds), count)``, float32, each a function of its row's seed and its position.

    SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014) hashes seed and
    position; the Box-Muller transform makes two values of a hash. The same on every device, except for the last bits.

    Args:
        seeds: ``(N,)`` int64.
        count: values per seed.
    """
    pairs = -(-count // 2)
    mixed = _mix(_mix(seeds)[:, None] + torch.arange(1, pairs + 1, device=seeds.device) * _GOLDEN)
    one = ((mixed >> 40) & 0xFFFFFF).float().add_(0.5).div_(2**24)
    other = ((mixed >> 8) & 0xFFFFFF).float().mul_(2 * math.pi / 2**24)
    radius = one.log_().mul_(-2).sqrt_()
    return torch.cat([radius * other.cos(), radius * other.sin()], dim=1)[:, :count]


def jpeg_patches(values: Tensor, qualities: Tensor, limits: Tensor) -> Tensor:
    """Compress and decompress each image by its own quality, as baseline JPEG with 4:2:0 chroma.

    Args:
        values: ``(N, 3, H, W)`` RGB, whole numbers 0 to 255 as float32; height and width multiples of 16. What lies
            beyond an image's limits must repeat its edge.
        qualities: ``(N,)``, 1 to 100.
        limits: ``(N, 2)``, height and width of what belongs to the image.

    Returns:
        As ``values``.
    """
    ycc = _colours(values, _TO_YCC).add_(values.new_tensor([0.0, 128.0, 128.0]).reshape(1, 3, 1, 1)).round_()
    y, chroma = ycc[:, :1], ycc[:, 1:]
    # libjpeg adds 1 and 2 alternately before it divides by 4
    turns = (torch.arange(values.shape[-1] // 2, device=values.device) % 2 + 1).float() / 4
    chroma, halves = torch.floor(F.avg_pool2d(chroma, 2) + turns), (limits + 1) // 2
    every = torch.arange(chroma.shape[-1], device=values.device).expand(len(values), -1)
    down = torch.arange(chroma.shape[-2], device=values.device)
    chroma = _pick(chroma, torch.minimum(down, halves[:, :1] - 1), every)  # downwards, the halved edge is repeated
    steps = _quantization_tables().to(values)[qualities.long()]
    y, chroma = _code(y, steps[:, :1]), _code(chroma, steps[:, 1:])
    chroma = _upsample_chroma(chroma, halves)
    centred = torch.cat([y, chroma - 128], dim=1)
    return _colours(centred, _TO_RGB).round_().clamp_(0, 255)


def _surroundings(
    image: Pixels,
    start: npt.NDArray[np.int64],
    limit: npt.NDArray[np.int64],
    coded: int,
    shrunk_radius: int,
    factor: int,
) -> Pixels:
    """The clean pixels that the compressed window depends on, the photograph's edge replicated."""
    margin = BLUR_RADIUS + shrunk_radius * factor
    length = coded * factor + 2 * margin
    first = start * factor - margin
    if (first >= 0).all() and (first + length <= limit).all():
        return image[first[0] : first[0] + length, first[1] : first[1] + length]
    rows, columns = (np.clip(np.arange(first[k], first[k] + length), 0, limit[k] - 1) for k in (0, 1))
    return np.asarray(image[rows[:, None], columns])


def _shrink(images: Tensor, begin: Tensor, limits: Tensor, factor: int) -> Tensor:
    """Bicubic 1/``factor``, the photograph's edge mirrored; a margin of ``CUBIC_SUPPORT`` small pixels is consumed."""
    length = images.shape[-1]
    at = torch.arange(length, device=images.device)

    def mirrored(axis: int) -> Tensor:
        first, size = begin[:, axis, None] * factor, limits[:, axis, None] * factor
        place = at + first
        place = torch.where(place < 0, -1 - place, place)
        place = torch.where(place >= size, 2 * size - 1 - place, place)
        return (place - first).clamp(0, length - 1)

    images = _pick(images, mirrored(0), mirrored(1))
    small = F.interpolate(images, size=(length // factor,) * 2, mode="bicubic", antialias=True)
    return small[..., CUBIC_SUPPORT:-CUBIC_SUPPORT, CUBIC_SUPPORT:-CUBIC_SUPPORT].contiguous()


def _pick(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Of each image ``(N, C, H, W)`` its own rows ``(N, h)`` and columns ``(N, w)``."""
    n, channels, _, width = images.shape
    tall = images.gather(2, rows[:, None, :, None].expand(n, channels, -1, width))
    return tall.gather(3, columns[:, None, None, :].expand(n, channels, rows.shape[1], -1))


def _mix(state: Tensor) -> Tensor:
    """SplitMix64's finaliser; int64 wraps around as uint64 does."""
    state = (state ^ _shift(state, 30)) * _MIX_1
    state = (state ^ _shift(state, 27)) * _MIX_2
    return state ^ _shift(state, 31)


def _shift(state: Tensor, bits: int) -> Tensor:
    return (state >> bits) & ((1 << (64 - bits)) - 1)


def _colours(images: Tensor, matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    """A linear map of the channels, without a matrix product, which some devices compute in reduced precision."""
    r, g, b = images.unbind(1)
    return torch.stack([row[0] * r + row[1] * g + row[2] * b for row in matrix], dim=1)


@cache
def _quantization_tables() -> Tensor:
    """Of luma and the two chroma planes, by quality, as libjpeg makes them: ``(101, 3, 8, 8)``; 0 is unused."""
    tables = torch.ones(101, 3, _BLOCK * _BLOCK)
    for quality in range(1, 101):
        file = io.BytesIO()
        Image.new("RGB", (_BLOCK, _BLOCK)).save(file, "JPEG", quality=quality)
        file.seek(0)
        luma, chroma = (torch.tensor(table) for table in JpegImageFile(file).quantization.values())
        tables[quality] = torch.stack([luma, chroma, chroma])
    return tables.reshape(-1, 3, _BLOCK, _BLOCK)


def _code(planes: Tensor, steps: Tensor) -> Tensor:
    """DCT, rounding to multiples of ``steps``, and back, in blocks of eight; ``steps`` is ``(N, C, 8, 8)``."""
    n, channels, height, width = planes.shape
    blocks = planes.reshape(n, channels, height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK).transpose(3, 4) - 128
    cosines = torch.from_numpy(cv2.dct(np.eye(_BLOCK), flags=cv2.DCT_ROWS)).T.contiguous().to(planes)
    steps = steps[:, :, None, None]
    levels = (cosines @ blocks @ cosines.T).mul_(8).round_().div_(8) / steps  # libjpeg's integers are eighths
    levels = torch.sign(levels) * torch.floor(levels.abs() + 0.5)
    back = cosines.T @ (levels * steps) @ cosines
    return (back + 128).round_().clamp_(0, 255).transpose(3, 4).reshape(n, channels, height, width)


def _upsample_chroma(planes: Tensor, limits: Tensor) -> Tensor:
    """Upsample by 2 with libjpeg's triangle filter: weights 9, 3, 3, 1 of 16, 8 and 7 added alternately."""
    n, channels, height, width = planes.shape

    def neighbour(length: int, axis: int, step: int) -> Tensor:
        at = torch.arange(length, device=planes.device)
        return torch.minimum((at + step).clamp(min=0), limits[:, axis, None] - 1)

    columns = torch.arange(width, device=planes.device).expand(n, -1)
    tall = planes.new_empty(n, channels, height, 2, width)
    for turn, step in enumerate((-1, 1)):
        tall[:, :, :, turn] = 3 * planes + _pick(planes, neighbour(height, 0, step), columns)
    tall = tall.reshape(n, channels, 2 * height, width)
    wide = planes.new_empty(n, channels, 2 * height, width, 2)
    every = torch.arange(2 * height, device=planes.device).expand(n, -1)
    for turn, step in enumerate((-1, 1)):
        wide[..., turn] = torch.floor((3 * tall + _pick(tall, every, neighbour(width, 1, step)) + (8 - turn)) / 16)
    return wide.reshape(n, channels, 2 * height, 2 * width)
