"""The metrics of each task besides PSNR of unclipped values."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from restore_env.images.arrays import quantized
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
}
"""Heading and number format of each metric; lower is better for the perceptual distance alone."""


def metrics_of(factor: int, squeezenet: Path | None = None, device: str = "cpu") -> dict[str, Metric]:
    """The metrics of a task, by name.

    Of x4 results, as is usual for super-resolution, as 8 bits and without the borders: PSNR and SSIM of Y (Rec. 601),
    and the perceptual distance by SqueezeNet's features.

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

    return {
        "psnr_y": _as_saved(lambda images, targets: psnr(luma(images), luma(targets))),
        "ssim_y": _as_saved(lambda images, targets: ssim(luma(images), luma(targets))),
        "distance": _as_saved(distance),
    }


def _as_saved(metric: Metric) -> Metric:
    def measure(images: Tensor, targets: Tensor) -> Tensor:
        sides = (side[..., BORDER:-BORDER, BORDER:-BORDER] for side in (quantized(images).float() / 255, targets))
        return metric(*sides)

    return measure
