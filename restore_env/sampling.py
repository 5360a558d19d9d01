"""Drawing the starts of episodes: distorted patches and their targets, each from one seed."""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch

from restore_env.distortions.crop import Crop, cut
from restore_env.distortions.device import distort_crops
from restore_env.distortions.mixed import Distortion, draw_distortion
from restore_env.distortions.protocol import (
    check_severity,
    downscale,
    quantize,
)
from restore_env.distortions.saturation import apply_curve
from restore_env.errors import ImageRestoreError
from restore_env.images.arrays import Pixels
from restore_env.images.sources import ImageLike, ImageSource, PairSource, open_photo, pair_factor
from restore_env.patches import CropSampler

_LISTED = 1024  # a record lists arrays of at most so many entries

CONTEXT = 32
"""Pixels around a patch that a user's own distortion gets as well, where the image has them."""


@dataclass(frozen=True)
class EpisodeStart:
    """The images that an episode starts from."""

    distorted: npt.NDArray[Any]
    """RGB ``(h, w, 3)``, uint8 or float32 in [0, 1]. Where starts are drawn on a device, a uint8 tensor there."""
    target: npt.NDArray[Any]
    """RGB, ``factor`` times as high and wide."""
    factor: int
    """The task: 1 same size, 4 low resolution."""
    image: str
    """The photograph's name."""
    seed: int
    """Draws the same start again from the same sampler; -1 if the user gave the pair."""
    distortion: dict[str, Any]
    """Position of the patch and levels of its distortion, as plain numbers and strings."""
    index: int = -1
    """The photograph's number; -1 if the user gave the pair."""
    level: int = -1
    """Its number in a level set, which holds what is known instead of the images; -1 if it is from none."""


@runtime_checkable
class Compose(Protocol):
    """The part of ``albumentations.Compose`` that is used."""

    def set_random_state(self, random_generator: np.random.Generator, py_random: random.Random) -> None:
        """Give the transforms the generators that they draw from."""

    def __call__(self, *args: Any, **data: Any) -> dict[str, Any]:
        """Transform ``image=``; the result is under the same key."""


class StartSampler:
    """Draws episode starts.

    Args:
        source: photographs, or pairs, which are cropped but not distorted.
        distortion: a severity's name, or an ``albumentations.Compose`` that maps a uint8 RGB image to one of its size
            (it sees up to 32 pixels of context around the patch).
        patch_size: pixels of the distorted patch.
        factors: task factors, equally likely. With pairs, each pair has its own.
        device: where the patches of many seeds are distorted together
            (:mod:`restore_env.distortions.device`); None: on the host, one by one. A seed draws the same photograph,
            place and levels either way, but another field of noise.
        saturation_prob: probability of a :func:`restore_env.distortions.saturation.saturation_curve`.

    Raises:
        ImageError: no image is large enough for a factor.
        ValueError: an unknown severity, or a Compose together with a device.
    """

    def __init__(
        self,
        source: ImageSource | PairSource,
        distortion: str | Compose = "mixed",
        *,
        patch_size: int = 63,
        factors: Sequence[int] = (1,),
        device: torch.device | None = None,
        saturation_prob: float = 0.0,
    ) -> None:
        self._source = source
        self._device = None if isinstance(source, PairSource) else device  # pairs are not distorted
        self._patch_size = patch_size
        self._compose: Compose | None = None
        self._severity = ""
        if isinstance(distortion, str):
            self._severity = check_severity(distortion)
        elif device is not None:
            raise ImageRestoreError(
                "a distortion of your own works on the host: leave draws='device' out, or use a severity"
            )
        else:
            self._compose = copy.deepcopy(distortion)
            self._compose.save_applied_params = True  # type: ignore[attr-defined]
        self._pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="starts")
        self._crops: CropSampler | None = None
        if isinstance(source, PairSource):
            self._factors = tuple(sorted({source.factor(i) for i in range(len(source))}))
        else:
            self._factors = tuple(factors)
            self._crops = CropSampler(source, patch_size, factors=factors, saturation_prob=saturation_prob)

    @property
    def factors(self) -> tuple[int, ...]:
        """The task factors that can come up."""
        return self._factors

    @property
    def photographs(self) -> list[str]:
        """Names of the photographs."""
        return [self._source.identity(number) for number in range(len(self._source))]

    def starts(self, chosen: Sequence[int | EpisodeStart]) -> Iterator[EpisodeStart]:
        """Draw the starts of many seeds, on several threads where there is work for them; starts stay as they are.

        The threads begin at once, and the iterator waits for them.
        """
        seeds = [start for start in chosen if isinstance(start, int)]
        if self._device is not None and seeds:
            together = self._pool.submit(self._draw_together, seeds)
            drawn = (start for batch in (together,) for start in batch.result())
        else:
            # a Compose has state: not thread-safe
            alone = self._compose is not None or len(seeds) < 2
            drawn = (start for start in (map if alone else self._pool.map)(self.draw, seeds))
        return (next(drawn) if isinstance(start, int) else start for start in chosen)

    def draw(self, seed: int) -> EpisodeStart:
        """Draw a start; the same seed gives the same start."""
        if self._device is not None:
            return self._draw_together([seed])[0]
        rng = np.random.default_rng(seed)
        if isinstance(self._source, PairSource):
            return self._cut_pair(self._source, seed, rng)
        assert self._crops is not None
        crop = self._crops.draw(rng)
        if self._compose is None:
            drawn = draw_distortion(self._severity, rng)
            return _start(crop, crop.distorted(drawn, rng), seed, drawn.as_dict())
        distorted, applied = _apply_compose(self._compose, crop, rng)
        return _start(crop, distorted, seed, {"transforms": applied})

    def _draw_together(self, seeds: Sequence[int]) -> list[EpisodeStart]:
        """The starts of many seeds, distorted on the device, those of a factor at once."""
        assert self._crops is not None
        assert self._device is not None
        drawn: list[tuple[Crop, Distortion, int]] = []
        for seed in seeds:
            rng = np.random.default_rng(seed)
            drawn.append((self._crops.draw(rng), draw_distortion(self._severity, rng), int(rng.integers(2**63))))
        starts: dict[int, EpisodeStart] = {}
        for factor in self._factors:
            rows = [row for row, (crop, *_) in enumerate(drawn) if crop.factor == factor]
            if not rows:
                continue
            crops, distortions, noise_seeds = zip(*(drawn[row] for row in rows), strict=True)
            patches = distort_crops(crops, distortions, noise_seeds, self._device)
            for row, patch in zip(rows, patches.unbind(), strict=True):
                crop, strengths, _ = drawn[row]
                starts[row] = _start(crop, cast("Pixels", patch), seeds[row], strengths.as_dict())
        return [starts[row] for row in range(len(seeds))]

    def _cut_pair(self, source: PairSource, seed: int, rng: np.random.Generator) -> EpisodeStart:
        index = int(rng.integers(len(source)))
        distorted, target, factor = source.distorted.pixels(index), source.target.pixels(index), source.factor(index)
        size = self._patch_size
        top = int(rng.integers(distorted.shape[0] - size + 1))
        left = int(rng.integers(distorted.shape[1] - size + 1))
        return EpisodeStart(
            distorted=cut(distorted, top, left, size),
            target=cut(target, top * factor, left * factor, size * factor),
            factor=factor,
            image=source.identity(index),
            seed=seed,
            distortion={"scale": 1.0, "top": top * factor, "left": left * factor},
            index=index,
        )


def _start(crop: Crop, distorted: Pixels, seed: int, distortion: dict[str, Any]) -> EpisodeStart:
    where = {"scale": crop.scale, "top": crop.top * crop.factor, "left": crop.left * crop.factor}
    if crop.curve is not None:
        where["saturated"] = True
    return EpisodeStart(distorted, crop.target(), crop.factor, crop.identity, seed, where | distortion, crop.index)


def _apply_compose(compose: Compose, crop: Crop, rng: np.random.Generator) -> tuple[Pixels, str]:
    """The patch under a user's transforms, which get :data:`CONTEXT` pixels around it, and what they did, as JSON."""
    image, factor, size = crop.image, crop.factor, crop.size
    spans = []
    for start, length in zip((crop.top, crop.left), image.shape, strict=False):
        spans.append(slice(max(0, start - CONTEXT) * factor, min(length // factor, start + size + CONTEXT) * factor))
    region = apply_curve(np.ascontiguousarray(image[spans[0], spans[1]]), crop.curve)
    if factor > 1:
        region = quantize(downscale(region.astype(np.float32) / np.float32(255), factor))
    compose.set_random_state(rng, random.Random(int(rng.integers(2**31))))
    result = compose(image=region)
    changed = np.asarray(result["image"])
    if changed.shape != region.shape or changed.dtype != np.uint8:
        raise ImageRestoreError(
            f"the distortion must return uint8 of shape {region.shape}, got {changed.dtype} of {changed.shape}"
        )
    applied = json.dumps(result.get("applied_transforms", []), default=_as_plain)
    return cut(changed, crop.top - spans[0].start // factor, crop.left - spans[1].start // factor, size), applied


def _as_plain(value: Any) -> Any:
    """Numbers as numbers, small arrays as lists, large ones (noise) by shape, as the seed draws them again."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.size <= _LISTED:
        return value.tolist()
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{list(value.shape)}"
    return str(value)


def own_pair(distorted: ImageLike, target: ImageLike) -> EpisodeStart:
    """A start from a pair of images: paths, or arrays (float in [0, 1] keeps its precision).

    Raises:
        ImageError: an image cannot be used, or the sizes do not fit together.
    """
    images = [open_photo(image, name)[0] for image, name in ((distorted, "distorted"), (target, "target"))]
    factor = pair_factor(images[0].shape[:2], images[1].shape[:2], "the pair")
    name = str(distorted) if isinstance(distorted, (str, os.PathLike)) else "own pair"
    return EpisodeStart(images[0], images[1], factor, name, -1, {})
