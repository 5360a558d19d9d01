"""The metrics of each task besides PSNR of unclipped values."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from restore_env.extras import has_extra
from restore_env.images.arrays import Pixels, quantized
from restore_env.images.tiling import to_pixels
from restore_env.metrics import Metric, luma, psnr, ssim
from sr_models.extractors.squeezenet import load_squeezenet
from sr_models.losses.perceptual import PerceptualDistance
from sr_models.prior.semantic_prior import load_prior

BORDER = 4
"""Pixels at the borders that super-resolution is measured without."""
HEADS = {
    "psnr": ("PSNR, dB", ".2f"),
    "ssim": ("SSIM", ".4f"),
    "psnr_y": ("PSNR (Y), dB", ".2f"),
    "ssim_y": ("SSIM (Y)", ".4f"),
    "distance": ("perceptual distance", ".4f"),
    "ssimulacra2": ("SSIMULACRA 2", ".1f"),
    "flip": ("FLIP", ".4f"),
}
"""Heading and number format of each metric."""
LOWER_IS_BETTER = ("distance", "flip")


def metrics_of(factor: int, squeezenet: Path | None = None, device: str = "cpu") -> dict[str, Metric]:
    """The metrics of a task, by name.

    Of x4 results, as is usual for super-resolution, as 8 bits and without the borders: PSNR and SSIM of Y (Rec. 601),
    the perceptual distance by SqueezeNet's features, and, where the extra ``judges`` is installed, two that have no
    network: SSIMULACRA 2 (100 is perfect) and FLIP (0 is perfect).

    Args:
        factor: 1 same size, 4 low resolution.
        squeezenet: ImageNet's weights of SqueezeNet; None: the trunk of the shipped semantic prior.
        device: where the distance is computed.

    Raises:
        ValueError: a file that is missing or damaged.
    """
    if factor == 1:
        return {"ssim": ssim}
    extractor = load_prior().trunk if squeezenet is None else load_squeezenet(squeezenet)
    perceptual = PerceptualDistance(extractor.to(device))

    def distance(images: Tensor, targets: Tensor) -> Tensor:
        with torch.inference_mode():
            pairs = zip(images, targets, strict=True)
            return torch.cat(
                [perceptual(image[None].to(device), target[None].to(device)) for image, target in pairs]
            ).cpu()

    judges = {"ssimulacra2": ssimulacra2, "flip": flip} if has_extra("judges") else {}
    return {
        "psnr_y": _as_saved(lambda images, targets: psnr(luma(images), luma(targets))),
        "ssim_y": _as_saved(lambda images, targets: ssim(luma(images), luma(targets))),
        "distance": _as_saved(distance),
        **{name: _as_saved(one_by_one(judge)) for name, judge in judges.items()},
    }


def ssimulacra2(image: Pixels, target: Pixels) -> float:
    """SSIMULACRA 2 of uint8 RGB ``(H, W, 3)``: 100 for the same, 90 for what cannot be told apart, below 0 for ruins.

    Source: Sneyers, "SSIMULACRA 2", Cloudinary, 2022.
    """
    from ssimulacra2 import compute_ssimulacra2

    files = [io.BytesIO() for _ in range(2)]
    for file, pixels in zip(files, (target, image), strict=True):
        Image.fromarray(pixels).save(file, "PNG", compress_level=0)
    return float(compute_ssimulacra2(*files))


def flip(image: Pixels, target: Pixels) -> float:
    """LDR-FLIP of uint8 RGB ``(H, W, 3)`` at its usual viewing distance, from 0 for the same to 1.

    Source: Andersson et al., "FLIP: A Difference Evaluator for Alternating Images", HPG 2020.
    """
    from flip_evaluator import evaluate

    reference, test = (np.ascontiguousarray(pixels.astype(np.float32) / 255) for pixels in (target, image))
    return float(evaluate(reference, test, "LDR", applyMagma=False)[1])


def one_by_one(judge: Callable[[Pixels, Pixels], float]) -> Metric:
    """A metric of tensors, from one of single images as uint8 RGB ``(H, W, 3)``."""

    def measure(images: Tensor, targets: Tensor) -> Tensor:
        pairs = zip(images, targets, strict=True)
        return torch.tensor([judge(*(to_pixels(side[None]) for side in pair)) for pair in pairs])

    return measure


def _as_saved(metric: Metric) -> Metric:
    def measure(images: Tensor, targets: Tensor) -> Tensor:
        sides = (side[..., BORDER:-BORDER, BORDER:-BORDER] for side in (quantized(images).float() / 255, targets))
        return metric(*sides)

    return measure
