"""Validation of a super-resolver in training: a few crops, PSNR and perceptual distance on them, a picture of them."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from restore_env.images.decoding import Photo
from restore_env.images.encoding import write_image
from restore_env.images.tiling import to_pixels
from restore_env.metrics import psnr
from restore_env.patches import PairSampler
from restore_env.toolbox import bicubic_upscale
from sr_models.extractors.extractor import Extractor
from sr_models.losses.perceptual import PerceptualDistance
from tools_zoo.training.losses import as_tensor

CROPS = 12
GRID_ROWS, GRID_GAP = 6, 4
"""Crops in the picture at most, and pixels between them."""


class ValidationCrops:
    """Crops of validation photographs; float32 RGB in [0, 1].

    Args:
        sampler: draws the crops.
        extractor: of the perceptual distance.
        seed: of the drawing.
        device: where the crops are kept.
    """

    def __init__(self, sampler: PairSampler, extractor: Extractor, seed: int, device: str) -> None:
        pairs = sampler.batch(np.random.default_rng([seed, 1]), CROPS)
        self.inputs, self.targets = (as_tensor(side, device) for side in pairs)
        self._distance = PerceptualDistance(extractor).to(device)
        self.bicubic = bicubic_upscale(self.inputs)

    @torch.no_grad()
    def measure(self, upscale: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Mean PSNR (dB) and perceptual distance of upscaled crops, as ``psnr/output`` and ``distance/output``."""
        return self.compare(upscale(self.inputs).clamp(0, 1), "output")

    @torch.no_grad()
    def compare(self, images: Tensor, name: str) -> dict[str, float]:
        """Mean PSNR (dB) and perceptual distance of images, as ``psnr/name`` and ``distance/name``."""
        return {
            f"psnr/{name}": float(psnr(images, self.targets).mean()),
            f"distance/{name}": float(self._distance(images, self.targets).mean()),
        }

    @torch.no_grad()
    def write_grid(self, path: str | os.PathLike[str], upscale: Callable[[Tensor], Tensor]) -> None:
        """Write a picture with a row per crop: bicubic, upscaled, target."""
        columns = [self.bicubic, upscale(self.inputs).clamp(0, 1), self.targets]
        rows = torch.stack(columns, 1)[:GRID_ROWS].float().cpu().flatten(0, 1)
        count, _, height, width = rows.shape
        padded = torch.ones(count, 3, height + GRID_GAP, width + GRID_GAP)
        padded[..., :height, :width] = rows
        grid = padded.reshape(-1, len(columns), *padded.shape[1:]).permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)
        write_image(path, Photo(to_pixels(grid[None, :, :-GRID_GAP, :-GRID_GAP])))
