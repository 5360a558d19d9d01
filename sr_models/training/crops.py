"""Crops of photographs and smaller distorted versions of them: training pairs, and validation in training."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from restore_env.distortions.crop import Crop
from restore_env.images.arrays import Pixels
from restore_env.images.decoding import Photo
from restore_env.images.encoding import write_image
from restore_env.images.sources import ImageSource
from restore_env.images.tiling import to_pixels
from restore_env.metrics import psnr
from restore_env.patches import CropSampler, PairSampler
from restore_env.toolbox import bicubic_upscale
from sr_models.extractors.extractor import Extractor
from sr_models.generators import UPSCALE
from sr_models.losses.perceptual import PerceptualDistance
from sr_models.training.blind_distortion import Distortion
from sr_models.training.drawings import drawing
from sr_models.training.teacher import TeacherOutputs
from tools_zoo.training.losses import as_tensor

CONTEXT = 16
"""Pixels around a crop that are distorted with it, where the photograph has them."""
DRAWING = "a drawing"
"""Identity of crops that are not of photographs."""
CROPS = 12
"""Crops of the validation."""
GRID_ROWS, GRID_GAP = 6, 4
"""Crops in the picture at most, and pixels between them."""


class _Crops(CropSampler):
    """Draws crops of photographs and of drawings."""

    def __init__(self, *arguments: Any, drawing_share: float, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._drawing_share = drawing_share

    def draw(self, rng: np.random.Generator) -> Crop:
        """Draw a crop."""
        if not self._drawing_share or rng.random() >= self._drawing_share:
            return super().draw(rng)
        page = drawing(self._size + 2 * CONTEXT, rng)
        return Crop(page, DRAWING, 1.0, 1, self._size, CONTEXT, CONTEXT)


class SrPairSampler(PairSampler):
    """Draws low-resolution inputs and their targets.

    Args:
        source: photographs.
        indices: which of them.
        crop_size: pixels of the target, a multiple of 4.
        distortion: makes the low-resolution image.
        teacher: gives further targets, behind the photographs' channels: ``(N, H, W, 6)``. Crops then start at
            multiples of 4, where the whole photograph's low-resolution pixels do. Drawings have no teacher.
        drawing_share: how many crops are of :func:`sr_models.training.drawings.drawing` instead.

    Raises:
        ValueError: the crop's size is not a multiple of 4, or no image is as large as a crop.
    """

    def __init__(
        self,
        source: ImageSource,
        indices: Sequence[int],
        crop_size: int,
        distortion: Distortion,
        teacher: TeacherOutputs | None = None,
        drawing_share: float = 0.0,
    ) -> None:
        if crop_size % UPSCALE:
            raise ValueError(f"a crop of {crop_size} pixels is no multiple of {UPSCALE}")
        step = 1 if teacher is None else UPSCALE
        super().__init__(_Crops(source, crop_size, indices=indices, step=step, drawing_share=drawing_share))
        self._distortion, self._teacher = distortion, teacher

    def target(self, crop: Crop) -> Pixels:
        """The crop of the photograph, and the teacher's output for it, if there is one."""
        clean = crop.target()
        if self._teacher is None:
            return clean
        taught = clean if crop.identity == DRAWING else self._teacher.patch(crop)
        return np.concatenate([clean, taught], axis=2)

    def distort(self, crop: Crop, rng: np.random.Generator) -> Pixels:
        """The crop at a quarter of its size, distorted together with its context."""
        size, small = crop.size, crop.size // UPSCALE
        before = [min(CONTEXT, start) // UPSCALE * UPSCALE for start in (crop.top, crop.left)]
        rows, columns = (
            slice(start - margin, start + size + min(CONTEXT, length - start - size) // UPSCALE * UPSCALE)
            for start, margin, length in zip((crop.top, crop.left), before, crop.image.shape, strict=False)
        )
        distorted = self._distortion(np.ascontiguousarray(crop.image[rows, columns]), rng)
        top, left = (margin // UPSCALE for margin in before)
        return distorted[top : top + small, left : left + small]


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
        self._distance = PerceptualDistance(extractor)
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
        cells = F.pad(torch.stack(columns, 1)[:GRID_ROWS].float().cpu(), (0, GRID_GAP, 0, GRID_GAP), value=1.0)
        grid = cells.permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)
        write_image(path, Photo(to_pixels(grid[None, :, :-GRID_GAP, :-GRID_GAP])))
