"""The compact observation: statistics of a patch's spectrum and colours, from which distortions can be told.

Blur removes high frequencies, noise adds to all of them, and JPEG, which uses the same cosine transform, sets weak ones
to zero and leaves borders between its blocks.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

WINDOW, STRIDE = 8, 2
LUMA = (0.299, 0.587, 0.114)
CHROMA = ((-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
ROUNDING_FLOOR = 0.4
"""Magnitudes well below it, in grey levels of 255, are rounding errors: their logarithm is that of this value."""
SPECTRUM_SIZE = 3 * WINDOW**2
"""Numbers of :func:`spectrum`."""
BANDS = 2 * WINDOW - 1
"""Bands of frequencies for the chroma: those with the same sum of both indices."""
CHROMA_SIZE = 3 * BANDS
"""Numbers of :func:`chroma_spectrum`."""
BLOCKING_SIZE = 8
"""Numbers of :func:`blocking`."""
STEP_FLOOR = 0.05
"""Added to differences between neighbouring pixels, in grey levels of 255, before they are compared."""
PIECE = 8
"""Patches that a CPU works on at once: what is computed on the way stays in its cache."""
COMPACT_SIZE = SPECTRUM_SIZE + CHROMA_SIZE + 12 + BLOCKING_SIZE
"""Numbers of the compact observation: both spectra, mean, deviation and clipped shares of each channel, blocking."""

_PARTS = (  # size, smallest value, step between neighbouring values
    (WINDOW**2, -1.0, 1 / 32),  # mean logarithm: from the floor to that of a constant white patch
    (WINDOW**2, 0.0, 1 / 64),  # its deviation
    (WINDOW**2, 0.0, 1 / 255),  # share of windows that lack the frequency
    (BANDS, -1.0, 1 / 32),  # the same three of the chroma
    (BANDS, 0.0, 1 / 64),
    (BANDS, 0.0, 1 / 255),
    (3, 0.0, 1 / 255),  # mean
    (3, 0.0, 1 / 510),  # deviation
    (6, 0.0, 1 / 255),  # share of pixels at 0, then at 255
    (BLOCKING_SIZE, 0.0, 1 / 64),
)
_SIZES = [size for size, _, _ in _PARTS]
LOWEST = np.repeat(np.array([low for _, low, _ in _PARTS], dtype=np.float32), _SIZES)
"""Smallest value of each number, ``(257,)``."""
STEP = np.repeat(np.array([step for _, _, step in _PARTS], dtype=np.float32), _SIZES)
"""Distance of its neighbouring values, ``(257,)``: each number takes 256 values."""
HIGHEST = LOWEST + 255 * STEP
"""Largest value, ``(257,)``."""


def spectrum(images: Tensor) -> Tensor:
    """Statistics of the luma's cosine transform in windows of 8x8 pixels.

    Args:
        images: RGB ``(N, 3, H, W)`` in [0, 1], of 8 pixels or more.

    Returns:
        ``(N, 192)``: for each of 64 frequencies the mean of the log magnitude over the windows, then for each its
        standard deviation, then the share of windows in which it is missing.
    """
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):  # bf16 has no 8 bits for grey levels
        return torch.cat(_statistics(_power(images, LUMA, 128)), dim=1)


def chroma_spectrum(images: Tensor) -> Tensor:
    """The statistics of :func:`spectrum` of both chroma channels together, by bands of frequencies: ``(N, 45)``."""
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        blue, red = (_power(images, weights, 0) for weights in CHROMA)
        bands = _bands(images.device)
        return torch.cat([numbers @ bands for numbers in _statistics(blue.add_(red).div_(2))], dim=1)


def blocking(images: Tensor) -> Tensor:
    """How much neighbouring pixels differ at the borders of JPEG's blocks of 8x8 pixels, wherever these lie.

    The columns between neighbours have eight phases, of which the borders are one. That and the one next to it in
    strength are compared with the mean of the others.

    Args:
        images: RGB ``(N, 3, H, W)`` in [0, 1], of 8 pixels or more.

    Returns:
        ``(N, 8)``, logarithms of ratios: luma across columns (both phases) and across rows, then chroma.
    """
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        numbers = []
        for planes in ((LUMA,), CHROMA):
            for axis in (2, 1):
                steps = sum(_plane(images, weights)[:, 0].diff(dim=axis).abs().mean(3 - axis) for weights in planes)
                assert isinstance(steps, Tensor)
                phases = torch.stack([steps[:, phase::WINDOW].sum(1) for phase in range(WINDOW)], dim=1)
                counts = [max(1, len(range(phase, steps.shape[1], WINDOW))) for phase in range(WINDOW)]
                ordered = (phases / phases.new_tensor(counts)).sort(dim=1, descending=True).values
                others = ordered[:, 2:].mean(1, keepdim=True)
                numbers.append(torch.log((ordered[:, :2] + STEP_FLOOR) / (others + STEP_FLOOR)))
        return torch.cat(numbers, dim=1)


def _plane(images: Tensor, weights: tuple[float, float, float]) -> Tensor:
    """A weighted sum of the channels, in grey levels: ``(N, 1, H, W)``."""
    grey_levels = 255 * torch.tensor(weights, device=images.device)[:, None, None]
    return (images.float() * grey_levels).sum(1, keepdim=True)


def _power(images: Tensor, weights: tuple[float, float, float], middle: float) -> Tensor:
    """Squared coefficients of a weighted sum of the channels, in grey levels: ``(N, 64, windows)``."""
    plane = _plane(images, weights) - middle
    return F.conv2d(plane, _transform(images.device), stride=STRIDE).flatten(2).square_()


def _statistics(power: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and deviation of the log magnitude over the windows, and the share of windows without it: ``(N, 64)``."""
    missing = power.clamp(max=60).div_(-2).exp_().mean(-1)  # above 60: denormal numbers, which are slow
    logarithm = (power + ROUNDING_FLOOR**2).log_().div_(2)
    mean = logarithm.mean(-1)
    deviation = (logarithm.square_().mean(-1) - mean**2).clamp_(min=0).sqrt_()
    return mean, deviation, missing


def compact_codes(images: Tensor) -> npt.NDArray[np.uint8]:
    """The compact observation of 8-bit patches ``(N, 3, H, W)`` as codes of 0 to 255: ``(N, 257)``."""
    if images.is_cpu and len(images) > PIECE:
        return np.concatenate([compact_codes(piece) for piece in torch.split(images, PIECE)])
    with torch.no_grad():
        scaled = images.float().div_(255)
        pixels = scaled.flatten(2)
        deviation, mean = torch.std_mean(pixels, dim=-1, correction=0)
        clipped = [(images.flatten(2) == value).float().mean(-1) for value in (0, 255)]
        spectra = [spectrum(scaled), chroma_spectrum(scaled)]
        numbers = torch.cat([*spectra, mean, deviation, *clipped, blocking(scaled)], dim=1).cpu().numpy()
    return np.asarray(np.rint((numbers - LOWEST) / STEP).clip(0, 255), dtype=np.uint8)


def decoded(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The numbers that codes stand for: float32 of the same shape."""
    return codes * STEP + LOWEST


@cache
def transposed_places() -> npt.NDArray[np.int64]:
    """Where each number of a transposed patch's compact observation is in that of the patch: ``(257,)``."""
    frequencies = np.arange(WINDOW**2).reshape(WINDOW, WINDOW).T.ravel()
    places = np.arange(COMPACT_SIZE)
    for first in range(0, 3 * WINDOW**2, WINDOW**2):
        places[first : first + WINDOW**2] = first + frequencies
    places[-8:] = COMPACT_SIZE - 8 + np.array([2, 3, 0, 1, 6, 7, 4, 5])  # across columns and rows, luma and chroma
    return places


@cache
def _bands(device: torch.device) -> Tensor:
    """Weights ``(64, 15)`` that average the frequencies of each band."""
    k = np.arange(WINDOW)
    members = (k[:, None] + k).reshape(-1, 1) == np.arange(BANDS)
    return torch.from_numpy(members / members.sum(axis=0)).float().to(device)


@cache
def _transform(device: torch.device) -> Tensor:
    """Kernels ``(64, 1, 8, 8)`` of the cosine transform."""
    k = np.arange(WINDOW)
    waves = np.cos((2 * k + 1) * k[:, None] * np.pi / (2 * WINDOW)) * np.sqrt(2 / WINDOW)
    waves[0] /= np.sqrt(2)
    kernels = np.einsum("ux,vy->uvxy", waves, waves).reshape(-1, 1, WINDOW, WINDOW)
    return torch.from_numpy(kernels).float().to(device)
