"""Crops that a super-resolver in training is measured on, and what is measured."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from restore_env.metrics import psnr
from restore_env.patches import PairSampler
from restore_env.toolbox import bicubic_upscale
from sr_models.extractors.extractor import Extractor
from sr_models.losses.perceptual import PerceptualDistance
from tools_zoo.training.losses import as_tensor

CROPS = 12


class Validation:
    """Crops of photographs kept from training, what is measured on them, and the pictures of them."""

    def __init__(self, sampler: PairSampler, extractor: Extractor, seed: int, device: str) -> None:
        pairs = sampler.batch(np.random.default_rng([seed, 1]), CROPS)
        self.inputs, self.targets = (as_tensor(side, device) for side in pairs)
        self._distance = PerceptualDistance(extractor).to(device)
        self.bicubic = bicubic_upscale(self.inputs)
        self.psnr_bicubic, self.distance_bicubic = self._compare(self.bicubic)

    @torch.no_grad()
    def measure(self, generator: nn.Module, maps: Callable[[Tensor], tuple[Tensor, ...]]) -> tuple[float, float]:
        """PSNR (dB) and perceptual distance of a generator's outputs."""
        return self._compare(self.upscaled(generator, maps))

    @torch.no_grad()
    def upscaled(self, generator: nn.Module, maps: Callable[[Tensor], tuple[Tensor, ...]]) -> Tensor:
        """What a generator makes of the crops, clipped."""
        training = generator.training
        outputs = generator.eval()(self.inputs, *maps(self.inputs))
        generator.train(training)
        clipped: Tensor = outputs.clamp(0, 1)
        return clipped

    def _compare(self, images: Tensor) -> tuple[float, float]:
        with torch.no_grad():
            return float(psnr(images, self.targets).mean()), float(self._distance(images, self.targets).mean())
