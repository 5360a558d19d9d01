"""Training patches: cut out of photographs at the protocol's scales and distorted, on the host or on a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from restore_env.distortions.device import Place, distort_patches
from restore_env.distortions.protocol import SCALES, Levels, distort_patch
from restore_env.distortions.saturation import Curve, apply_curve, draw_curve
from restore_env.images.sources import ImageSource
from restore_env.task import DRAWS, check_draws
from tools_zoo.training.trainer import Batch


def drawn_on(draws: str, device: str) -> str | None:
    """The device on which training on ``device`` distorts its patches; None: the host.

    Raises:
        ValueError: ``draws`` is neither "host" nor "device".
    """
    return device if check_draws(draws) == "device" else None


def drawing(draws: str) -> dict[str, str]:
    """What a run's identity and recipe say of where its patches are distorted: nothing, if that is the host."""
    return {} if draws == DRAWS[0] else {"draws": draws}


class PatchSampler:
    """Draws training pairs from some images of a source, at the protocol's scales.

    Args:
        source: photographs.
        indices: which of them.
        patch_size: pixels.
        draw_levels: the distortion of each patch.
        factor: how many times higher and wider the clean twin is: 4 for super-resolution.
        device: where the patches of a batch are distorted together (:mod:`restore_env.distortions.device`), the batch
            then tensors there; None: on the host, one by one.
        saturation_prob: share of the patches of which a part is white or black, as
            :func:`restore_env.distortions.saturation.saturation_curve` makes it.

    Raises:
        ValueError: no image is as large as a patch.
    """

    def __init__(
        self,
        source: ImageSource,
        indices: Sequence[int],
        patch_size: int,
        draw_levels: Callable[[np.random.Generator], Levels],
        factor: int = 1,
        device: str | torch.device | None = None,
        saturation_prob: float = 0.0,
    ) -> None:
        self._source, self._patch_size, self._draw_levels, self._factor = source, patch_size, draw_levels, factor
        self._device, self._saturation_prob = device, saturation_prob
        needed = patch_size * factor
        self._choices = [(i, s) for s in SCALES for i in indices if min(source.size(i, s)) >= needed]
        if not self._choices:
            raise ValueError(f"no image is as large as a patch of {needed}x{needed} pixels")

    def batch(self, rng: np.random.Generator, count: int) -> Batch:
        """Draw ``count`` distorted patches and their clean twins, flipped and turned at random."""
        return self._one_by_one(rng, count) if self._device is None else self._together(rng, count, self._device)

    def _one_by_one(self, rng: np.random.Generator, count: int) -> Batch:
        size = self._patch_size
        inputs = np.empty((count, size, size, 3), np.uint8)
        targets = np.empty((count, size * self._factor, size * self._factor, 3), np.uint8)
        for row in range(count):
            image, top, left, curve = self._place(rng)
            window, levels = (top, left, size, size), self._draw_levels(rng)
            distorted = distort_patch(image, window, levels, rng, self._factor, curve)
            turns, flip = int(rng.integers(4)), rng.integers(2)
            for batch, patch in ((inputs, distorted), (targets, apply_curve(self._clean(image, top, left), curve))):
                turned = np.rot90(patch, turns)
                batch[row] = turned[:, ::-1] if flip else turned
        return inputs, targets

    @torch.inference_mode()
    def _together(self, rng: np.random.Generator, count: int, device: str | torch.device) -> Batch:
        places, clean, ways = [], [], []
        for _ in range(count):
            image, top, left, curve = self._place(rng)
            levels = self._draw_levels(rng)
            ways.append((int(rng.integers(4)), int(rng.integers(2))))
            places.append(Place(image, top, left, levels, int(rng.integers(2**63)), curve))
            clean.append(apply_curve(self._clean(image, top, left), curve))
        inputs = distort_patches(places, self._patch_size, self._factor, device).contiguous()
        targets = torch.from_numpy(np.stack(clean)).to(device)
        for turns, flip in set(ways):
            rows = torch.tensor([row for row, way in enumerate(ways) if way == (turns, flip)], device=device)
            for batch in (inputs, targets):
                turned = batch[rows].rot90(turns, (1, 2))
                batch[rows] = turned.flip(2) if flip else turned
        return inputs, targets

    def _place(self, rng: np.random.Generator) -> tuple[npt.NDArray[np.uint8], int, int, Curve | None]:
        """A photograph at one of its scales; a patch's top and left, in pixels of the distorted image; its curve."""
        index, scale = self._choices[rng.integers(len(self._choices))]
        image = self._source.pixels(index, scale)
        rows, columns = (length // self._factor - self._patch_size + 1 for length in image.shape[:2])
        top, left = int(rng.integers(rows)), int(rng.integers(columns))
        return image, top, left, draw_curve(self._clean(image, top, left), self._saturation_prob, rng)

    def _clean(self, image: npt.NDArray[np.uint8], top: int, left: int) -> npt.NDArray[np.uint8]:
        top, left, size = (self._factor * value for value in (top, left, self._patch_size))
        return image[top : top + size, left : left + size]
