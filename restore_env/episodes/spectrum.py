"""The compact observation: statistics of a patch's spectrum and colours, from which distortions can be told.

Blur removes high frequencies, noise adds to all of them, and JPEG, which uses the same cosine transform, sets weak ones
to zero.
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
ROUNDING_FLOOR = 0.4
"""Magnitudes well below it, in grey levels of 255, are rounding errors: their logarithm is that of this value."""
SPECTRUM_SIZE = 3 * WINDOW**2
"""Numbers of :func:`spectrum`."""
COMPACT_SIZE = SPECTRUM_SIZE + 12
"""Numbers of the compact observation: the spectrum's, and mean, deviation and both clipped shares of each channel."""

_PARTS = (  # size, smallest value, step between neighbouring values
    (WINDOW**2, -1.0, 1 / 32),  # mean logarithm: from the floor to that of a constant white patch
    (WINDOW**2, 0.0, 1 / 64),  # its deviation
    (WINDOW**2, 0.0, 1 / 255),  # share of windows that lack the frequency
    (3, 0.0, 1 / 255),  # mean
    (3, 0.0, 1 / 510),  # deviation
    (6, 0.0, 1 / 255),  # share of pixels at 0, then at 255
)
_SIZES = [size for size, _, _ in _PARTS]
LOWEST = np.repeat(np.array([low for _, low, _ in _PARTS], dtype=np.float32), _SIZES)
"""Smallest value of each number, ``(204,)``."""
STEP = np.repeat(np.array([step for _, _, step in _PARTS], dtype=np.float32), _SIZES)
"""Distance of its neighbouring values, ``(204,)``: each number takes 256 values."""
HIGHEST = LOWEST + 255 * STEP
"""Largest value, ``(204,)``."""


def spectrum(images: Tensor) -> Tensor:
    """Statistics of the luma's cosine transform in windows of 8x8 pixels.

    Args:
        images: RGB ``(N, 3, H, W)`` in [0, 1], of 8 pixels or more.

    Returns:
        ``(N, 192)``: for each of 64 frequencies the mean of the log magnitude over the windows, then for each its
        standard deviation, then the share of windows in which it is missing.
    """
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):  # bf16 has no 8 bits for grey levels
        kernels, grey_levels = _transform(images.device)
        grey = (images.float() * grey_levels).sum(1, keepdim=True) - 128
        power = F.conv2d(grey, kernels, stride=STRIDE).flatten(2).square_()
        missing = torch.exp(power.clamp(max=60) / -2).mean(-1)  # above 60: denormal numbers, which are slow
        logarithm = torch.log(power + ROUNDING_FLOOR**2).div_(2)
        mean = logarithm.mean(-1)
        deviation = (logarithm.square_().mean(-1) - mean**2).clamp_(min=0).sqrt_()
        return torch.cat([mean, deviation, missing], dim=1)


def compact_codes(images: Tensor) -> npt.NDArray[np.uint8]:
    """The compact observation of 8-bit patches ``(N, 3, H, W)`` as codes of 0 to 255: ``(N, 204)``."""
    with torch.no_grad():
        scaled = images.float().div_(255)
        pixels = scaled.flatten(2)
        deviation, mean = torch.std_mean(pixels, dim=-1, correction=0)
        clipped = [(images.flatten(2) == value).float().mean(-1) for value in (0, 255)]
        numbers = torch.cat([spectrum(scaled), mean, deviation, *clipped], dim=1).cpu().numpy()
    return np.asarray(np.rint((numbers - LOWEST) / STEP).clip(0, 255), dtype=np.uint8)


def decoded(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The numbers that codes stand for: float32 of the same shape."""
    return codes * STEP + LOWEST


@cache
def _transform(device: torch.device) -> tuple[Tensor, Tensor]:
    """Kernels ``(64, 1, 8, 8)`` of the cosine transform, and the weights of the channels in grey levels."""
    k = np.arange(WINDOW)
    waves = np.cos((2 * k + 1) * k[:, None] * np.pi / (2 * WINDOW)) * np.sqrt(2 / WINDOW)
    waves[0] /= np.sqrt(2)
    kernels = np.einsum("ux,vy->uvxy", waves, waves).reshape(-1, 1, WINDOW, WINDOW)
    return torch.from_numpy(kernels).float().to(device), 255 * torch.tensor(LUMA, device=device)[:, None, None]
