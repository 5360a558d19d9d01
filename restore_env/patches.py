"""Drawing patches of photographs and distorting them: the one sampler of episodes and of all trainings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from restore_env.distortions.crop import Crop
from restore_env.distortions.device import distort_crops
from restore_env.distortions.mixed import Distortion
from restore_env.distortions.protocol import SCALES
from restore_env.distortions.saturation import draw_curve
from restore_env.images.arrays import Pixels
from restore_env.images.decoding import ImageError
from restore_env.images.sources import ImageSource


class CropSampler:
    """Draws crops: a factor, a photograph at one of the protocol's scales, a place in it and a saturation curve.

    Args:
        source: photographs.
        size: pixels of the distorted patch.
        factors: how many times larger the target is; all equally likely.
        indices: which photographs; None: all.
        saturation_prob: probability of a :func:`restore_env.distortions.saturation.saturation_curve`.
        step: crops start at multiples of so many pixels.

    Raises:
        ImageError: no image is as large as a target.
    """

    def __init__(
        self,
        source: ImageSource,
        size: int,
        *,
        factors: Sequence[int] = (1,),
        indices: Sequence[int] | None = None,
        saturation_prob: float = 0.0,
        step: int = 1,
    ) -> None:
        self._source, self._size, self._factors, self._step = source, size, tuple(factors), step
        self._saturation_prob = saturation_prob
        chosen = range(len(source)) if indices is None else indices
        self._choices: dict[int, list[tuple[int, float]]] = {}
        for factor in self._factors:
            needed = size * factor
            choices = [(i, s) for s in SCALES for i in chosen if min(source.size(i, s)) >= needed]
            if not choices:
                smaller = f", or upscale=(1,) for images of {size} pixels and more" if factor > 1 else ""
                raise ImageError(
                    f"no image is as large as a patch of {needed}x{needed} pixels, which upscale factor {factor} needs:"
                    f" use larger images{smaller}"
                )
            self._choices[factor] = choices

    def draw(self, rng: np.random.Generator) -> Crop:
        """Draw a crop."""
        factor = self._factors[rng.integers(len(self._factors))]
        choices = self._choices[factor]
        index, scale = choices[rng.integers(len(choices))]
        image = self._source.pixels(index, scale)
        places = ((length // factor - self._size) // self._step + 1 for length in image.shape[:2])
        top, left = (self._step * int(rng.integers(count)) for count in places)
        crop = Crop(image, self._source.identity(index), scale, factor, self._size, top, left, index=index)
        curve = draw_curve(crop.target(), self._saturation_prob, rng)
        return crop if curve is None else replace(crop, curve=curve)


class PairSampler:
    """Draws batches of training pairs: distorted patches and their clean targets, flipped and turned at random."""

    def __init__(self, crops: CropSampler) -> None:
        self._crops = crops

    def distort(self, crop: Crop, rng: np.random.Generator) -> Pixels:
        """Distort one patch."""
        raise NotImplementedError

    def target(self, crop: Crop) -> Pixels:
        """What a crop's patch shall become."""
        return crop.target()

    def batch(self, rng: np.random.Generator, count: int) -> tuple[Pixels | Tensor, Pixels | Tensor]:
        """Draw ``count`` inputs and targets, uint8 RGB ``(N, H, W, 3)``."""
        inputs, targets, turns = [], [], []
        for _ in range(count):
            crop = self._crops.draw(rng)
            inputs.append(self.distort(crop, rng))
            targets.append(self.target(crop))
            turns.append(_draw_turn(rng))
        sides = [_turned(torch.from_numpy(np.stack(side)), turns).numpy() for side in (inputs, targets)]
        return sides[0], sides[1]


class PatchSampler(PairSampler):
    """Draws training pairs with the protocol's distortions.

    Args:
        source: photographs.
        indices: which of them.
        patch_size: pixels of the input.
        draw_distortion: draws the distortion of a patch.
        factor: how many times higher and wider the target is: 4 for super-resolution.
        device: where the patches of a batch are distorted together (:mod:`restore_env.distortions.device`); the batch
            is then tensors there. None: on the host, one by one.
        saturation_prob: probability of a :func:`restore_env.distortions.saturation.saturation_curve`.

    Raises:
        ImageError: no image is as large as a target.
    """

    def __init__(
        self,
        source: ImageSource,
        indices: Sequence[int],
        patch_size: int,
        draw_distortion: Callable[[np.random.Generator], Distortion],
        factor: int = 1,
        device: str | torch.device | None = None,
        saturation_prob: float = 0.0,
    ) -> None:
        super().__init__(
            CropSampler(source, patch_size, factors=(factor,), indices=indices, saturation_prob=saturation_prob)
        )
        self._draw_distortion, self._device = draw_distortion, device

    def batch(self, rng: np.random.Generator, count: int) -> tuple[Pixels | Tensor, Pixels | Tensor]:
        """Draw ``count`` inputs and targets, uint8 RGB ``(N, H, W, 3)``; on a device, if one was given."""
        return self.described_batch(rng, count)[:2]

    @torch.inference_mode()
    def described_batch(
        self, rng: np.random.Generator, count: int
    ) -> tuple[Pixels | Tensor, Pixels | Tensor, list[Distortion]]:
        """Draw a batch, and say what the distortion of each patch is."""
        inputs, crops, drawn, turns, seeds = [], [], [], [], []
        for _ in range(count):
            crops.append(self._crops.draw(rng))
            drawn.append(self._draw_distortion(rng))
            if self._device is None:
                inputs.append(torch.from_numpy(crops[-1].distorted(drawn[-1], rng)))
            turns.append(_draw_turn(rng))
            if self._device is not None:
                seeds.append(int(rng.integers(2**63)))
        targets = torch.from_numpy(np.stack([crop.target() for crop in crops]))
        if self._device is None:
            return _turned(torch.stack(inputs), turns).numpy(), _turned(targets, turns).numpy(), drawn
        distorted = distort_crops(crops, drawn, seeds, self._device).contiguous()
        return _turned(distorted, turns), _turned(targets.to(self._device), turns), drawn


def _draw_turn(rng: np.random.Generator) -> tuple[int, int]:
    """Quarter turns, and whether to flip."""
    return int(rng.integers(4)), int(rng.integers(2))


def _turned(batch: Tensor, turns: Sequence[tuple[int, int]]) -> Tensor:
    """Turn and flip each image ``(N, H, W, 3)`` as its pair says, in place."""
    for quarters, flip in set(turns):
        rows = torch.tensor([row for row, turn in enumerate(turns) if turn == (quarters, flip)], device=batch.device)
        turned = batch[rows].rot90(quarters, (1, 2))
        batch[rows] = turned.flip(2) if flip else turned
    return batch
