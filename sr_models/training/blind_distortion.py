"""Distortions that make the x4 smaller training images of super-resolution: "bicubic" and "blind".

"bicubic" is MATLAB's imresize. "blind" is Real-ESRGAN's second-order model: two passes of blur, resizing, noise and
JPEG, each strength random, with the paper's ranges and probabilities. Source: Wang et al., "Real-ESRGAN: Training
Real-World Blind Super-Resolution with Pure Synthetic Data", ICCVW 2021, arXiv 2107.10833, section 3 and appendix.

All random numbers come from the caller's generator. As an albumentations transform:
:mod:`sr_models.training.blind_transforms`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import cv2
import numpy as np
import torch

from restore_env.distortions.protocol import downscale, gaussian_noise, jpeg, quantize
from restore_env.images.arrays import Float, Pixels, to_float
from sr_models.generators import UPSCALE

Distortion = Callable[[Pixels, np.random.Generator], Pixels]
"""``distortion(clean, rng)``: uint8 RGB ``(H, W, 3)``, sides multiples of 4, to uint8 RGB ``(H / 4, W / 4, 3)``."""

KERNEL_SIZES: tuple[int, ...] = tuple(range(7, 22, 2))
"""Sides of blur kernels, all equally likely."""
PROFILES: Mapping[str, tuple[float, tuple[float, float]]] = MappingProxyType(
    {"gaussian": (0.7, (1.0, 1.0)), "generalized": (0.15, (0.5, 4.0)), "plateau": (0.15, (1.0, 2.0))}
)
"""Profiles of blur kernels: the probability and the bounds of the exponent of each."""
ISOTROPIC_PROB = 0.6
SINC_PROB = 0.1
"""Probability that a blur kernel is a sinc instead of a Gaussian."""
LAST_SINC_PROB = 0.8
"""Probability of a sinc filter after the last resizing."""
GREY_PROB = 0.4
"""Probability that noise is the same in all three channels."""
POISSON_PROB = 0.5
RESIZINGS: tuple[int, ...] = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC)
"""Interpolations, all equally likely."""
JPEG_RANGE = (30, 95)
"""Bounds of the quality."""


@dataclass(frozen=True)
class Pass:
    """Probabilities and bounds of one pass of the blind distortion; values are uniform between the bounds."""

    blur_prob: float
    blur_sigma: tuple[float, float]
    """Pixels, along either axis of the kernel."""
    upscale_prob: float
    downscale_prob: float
    sizes: tuple[float, float]
    """The smallest and the largest factor of resizing."""
    noise_sigma: tuple[float, float]
    """Gaussian noise, grey levels of 255."""
    poisson_scale: tuple[float, float]
    """Poisson noise, relative to that of one photon per grey level."""


PASSES: tuple[Pass, Pass] = (
    Pass(1.0, (0.2, 3.0), 0.2, 0.7, (0.15, 1.5), (1, 30), (0.05, 3.0)),
    Pass(0.8, (0.2, 1.5), 0.3, 0.4, (0.3, 1.2), (1, 25), (0.05, 2.5)),
)
"""The two passes."""


def bicubic(clean: Pixels, rng: np.random.Generator | None = None) -> Pixels:
    """Downscale by 4 as MATLAB's imresize, rounded to 8 bits: a :data:`Distortion` that draws nothing.

    Raises:
        ValueError: an image that is not uint8 RGB, or whose height or width is no multiple of 4.
    """
    return quantize(downscale(_checked(clean), UPSCALE))


def blind(clean: Pixels, rng: np.random.Generator) -> Pixels:
    """Distort as Real-ESRGAN does: a :data:`Distortion` of two passes of blur, resizing, noise and JPEG.

    The last resizing, with a sinc after it, comes before the last JPEG or after it, equally likely.

    Raises:
        ValueError: an image that is not uint8 RGB, or whose height or width is no multiple of 4.
    """
    image = _checked(clean)
    height, width = (side // UPSCALE for side in image.shape[:2])
    first, second = PASSES
    image = random_noise(random_resize(random_blur(image, first, rng), first, rng), first, rng)
    image = random_blur(random_jpeg(image, rng), second, rng)
    image = random_noise(random_resize(image, second, rng, base=(height, width)), second, rng)
    if rng.random() < 0.5:
        return quantize(random_jpeg(_last_resize(image, (height, width), rng), rng))
    return quantize(_last_resize(random_jpeg(image, rng), (height, width), rng))


def random_blur(image: Float, bounds: Pass, rng: np.random.Generator) -> Float:
    """Blur by a random kernel (a Gaussian of any shape, or a sinc), or leave the image; float RGB ``(H, W, 3)``."""
    if rng.random() >= bounds.blur_prob:
        return image
    size = int(rng.choice(KERNEL_SIZES))
    if rng.random() < SINC_PROB:
        return _filtered(image, _random_sinc(size, rng))
    profile = str(rng.choice(list(PROFILES), p=[prob for prob, _ in PROFILES.values()]))
    across, angle = float(rng.uniform(*bounds.blur_sigma)), 0.0
    along = across
    if rng.random() >= ISOTROPIC_PROB:
        along, angle = float(rng.uniform(*bounds.blur_sigma)), float(rng.uniform(0, math.pi))
    beta = float(rng.uniform(*PROFILES[profile][1]))
    return _filtered(image, gaussian_kernel(size, across, along, angle, beta, profile))


def random_resize(image: Float, bounds: Pass, rng: np.random.Generator, base: tuple[int, int] | None = None) -> Float:
    """Upscale, downscale or keep a float RGB image ``(H, W, 3)``, with a random interpolation.

    ``base`` is the height and width that the factor multiplies; None takes the image's own.
    """
    kind, factor = rng.random(), 1.0
    if kind < bounds.upscale_prob:
        factor = float(rng.uniform(1, bounds.sizes[1]))
    elif kind < bounds.upscale_prob + bounds.downscale_prob:
        factor = float(rng.uniform(bounds.sizes[0], 1))
    height, width = base or image.shape[:2]
    return _resized(image, (max(1, round(height * factor)), max(1, round(width * factor))), rng)


def random_noise(image: Float, bounds: Pass, rng: np.random.Generator) -> Float:
    """Add Gaussian or Poisson noise, in colour or grey, and clip to [0, 1]; float RGB ``(H, W, 3)``."""
    grey = rng.random() < GREY_PROB
    if rng.random() < POISSON_PROB:
        light = np.clip(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None] if grey else image, 0, 1)
        noise = rng.poisson(light * 255) / np.float32(255) - light
        noise *= rng.uniform(*bounds.poisson_scale)
    else:
        zeros = np.zeros((*image.shape[:2], 1 if grey else 3), np.float32)
        noise = gaussian_noise(zeros, float(rng.uniform(*bounds.noise_sigma)), rng)
    return np.asarray(np.clip(image + noise.astype(np.float32), 0, 1))


def random_jpeg(image: Float, rng: np.random.Generator) -> Float:
    """Compress and decompress the image, rounded to 8 bits, as JPEG of random quality; float RGB ``(H, W, 3)``."""
    return to_float(jpeg(quantize(image), int(rng.integers(JPEG_RANGE[0], JPEG_RANGE[1] + 1))))


def gaussian_kernel(
    size: int, across: float, along: float, angle: float, beta: float = 1.0, profile: str = "gaussian"
) -> Float:
    """An anisotropic blur kernel that sums to 1.

    Args:
        size: side of the kernel, odd.
        across: sigma in pixels along the first axis.
        along: sigma in pixels along the second axis, at a right angle to the first.
        angle: of the first axis, counted from the image's x axis, radians.
        beta: exponent of the squared distance; a Gaussian has 1.
        profile: "plateau" falls off as ``1 / (1 + d ** beta)``, all others as ``exp(-d ** beta / 2)``.
    """
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    u = (math.cos(angle) * x + math.sin(angle) * y) / across
    v = (math.cos(angle) * y - math.sin(angle) * x) / along
    distance = (u * u + v * v) ** beta
    kernel = 1 / (1 + distance) if profile == "plateau" else np.exp(-0.5 * distance)
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)


def sinc_kernel(size: int, cutoff: float) -> Float:
    """The ideal low-pass kernel of a round pass band, cut to ``size``, that sums to 1.

    Args:
        size: side of the kernel, odd.
        cutoff: the highest frequency that passes, radians per pixel, up to pi.
    """
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    radius = torch.from_numpy(np.hypot(x, y))
    kernel = (cutoff * torch.special.bessel_j1(cutoff * radius) / (2 * math.pi * radius)).numpy()
    kernel[size // 2, size // 2] = cutoff**2 / (4 * math.pi)
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)


def _random_sinc(size: int, rng: np.random.Generator) -> Float:
    return sinc_kernel(size, float(rng.uniform(math.pi / (3 if size < 13 else 5), math.pi)))


def _filtered(image: Float, kernel: Float) -> Float:
    return np.asarray(cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT), dtype=np.float32)


def _resized(image: Float, size: tuple[int, int], rng: np.random.Generator) -> Float:
    interpolation = int(rng.choice(RESIZINGS))
    return np.asarray(cv2.resize(image, size[::-1], interpolation=interpolation), dtype=np.float32)


def _last_resize(image: Float, size: tuple[int, int], rng: np.random.Generator) -> Float:
    small = _resized(image, size, rng)
    if rng.random() < LAST_SINC_PROB:
        small = _filtered(small, _random_sinc(int(rng.choice(KERNEL_SIZES)), rng))
    return small


def _checked(image: Pixels) -> Float:
    """A clean image as float, after checking that it can be distorted."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(f"expected a uint8 RGB image (H, W, 3), got {image.dtype} of shape {image.shape}")
    height, width = image.shape[:2]
    if height % UPSCALE or width % UPSCALE:
        raise ValueError(f"an image of {width}x{height} cannot be shrunk by {UPSCALE}: crop it to a multiple first")
    return to_float(image)


DISTORTIONS: Mapping[str, Distortion] = MappingProxyType({"bicubic": bicubic, "blind": blind})
"""The distortions by name."""
