"""How an episode starts: a patch of a photograph and its distorted twin, drawn from one seed."""

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

from restore_env.distortions.device import Place, distort_patches
from restore_env.distortions.protocol import SCALES, check_severity, distort_patch, downscale, draw_levels, quantize
from restore_env.distortions.saturation import Curve, apply_curve, draw_curve
from restore_env.images.arrays import Pixels
from restore_env.images.decoding import ImageError
from restore_env.images.sources import ImageLike, ImageSource, PairSource, open_photo, pair_factor

_LISTED = 1024  # entries of an array that a record spells out

CONTEXT = 32
"""Pixels around a patch that a user's own distortion gets to see, where the image has them."""


@dataclass(frozen=True)
class EpisodeStart:
    """What an episode starts from."""

    degraded: npt.NDArray[Any]
    """RGB ``(h, w, 3)``, uint8 or float32 in [0, 1]. Where starts are drawn on a device, a uint8 tensor there."""
    target: npt.NDArray[Any]
    """RGB, ``factor`` times as high and wide."""
    factor: int
    """The task: 1 same size, 4 low resolution."""
    image: str
    """Which photograph."""
    seed: int
    """Draws the same start again from the same sampler; -1 if the user gave the pair."""
    distortion: dict[str, Any]
    """Where the patch was cut and what was done to it, as plain numbers and strings."""


@dataclass(frozen=True)
class _Cut:
    """Where a patch is taken from."""

    image: Pixels
    identity: str
    scale: float
    factor: int
    top: int
    """Of the degraded patch."""
    left: int
    curve: Curve | None = None
    """What lightens or darkens the image, if anything does."""

    def start(self, degraded: Pixels, size: int, seed: int, distortion: dict[str, Any]) -> EpisodeStart:
        """The start once the patch is distorted, with its target."""
        top, left = self.top * self.factor, self.left * self.factor
        target = apply_curve(_cut(self.image, top, left, size * self.factor), self.curve)
        where = {"scale": self.scale, "top": top, "left": left}
        if self.curve is not None:
            where["saturated"] = True
        return EpisodeStart(degraded, target, self.factor, self.identity, seed, where | distortion)


@runtime_checkable
class Compose(Protocol):
    """What is used of ``albumentations.Compose``."""

    def set_random_state(self, random_generator: np.random.Generator, py_random: random.Random) -> None:
        """Give the transforms the generators that they draw from."""

    def __call__(self, *args: Any, **data: Any) -> dict[str, Any]:
        """Transform ``image=``; the result is under the same key."""


class StartSampler:
    """Draws episode starts.

    Args:
        source: photographs, or pairs, which are cut but not distorted.
        distortion: a severity's name, or an ``albumentations.Compose`` that maps a uint8 RGB image to one of its size
            (it sees up to 32 pixels of context around the patch).
        patch_size: pixels of the degraded patch.
        factors: task factors, equally likely. With pairs, each pair has its own.
        device: where the patches of many seeds are distorted together
            (:mod:`restore_env.distortions.device`); None: on the host, one by one. A seed draws the same photograph,
            place and levels either way, but another field of noise.
        saturation_prob: probability that a part of the patch is white or black, as
            :func:`restore_env.distortions.saturation.saturation_curve` makes it.

    Raises:
        ValueError: an unknown severity, a factor that no image is large enough for, or a Compose for a device.
    """

    def __init__(
        self,
        source: ImageSource | PairSource,
        distortion: str | Compose = "moderate",
        *,
        patch_size: int = 63,
        factors: Sequence[int] = (1,),
        device: torch.device | None = None,
        saturation_prob: float = 0.0,
    ) -> None:
        self._source, self._saturation_prob = source, saturation_prob
        self._device = None if isinstance(source, PairSource) else device  # pairs are not distorted
        self._patch_size = patch_size
        self._factors = tuple(factors)
        self._compose: Compose | None = None
        self._severity = ""
        if isinstance(distortion, str):
            self._severity = check_severity(distortion)
        elif device is not None:
            raise ValueError("a distortion of one's own works on the host: leave draws='device' out, or use a severity")
        else:
            self._compose = copy.deepcopy(distortion)
            self._compose.save_applied_params = True  # type: ignore[attr-defined]
        self._pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="starts")
        if isinstance(source, PairSource):
            self._factors = tuple(sorted({source.factor(i) for i in range(len(source))}))
            self._choices: dict[int, list[tuple[int, float]]] = {}
        else:
            self._choices = {factor: self._choices_for(source, factor) for factor in self._factors}

    @property
    def factors(self) -> tuple[int, ...]:
        """The task factors that can come up."""
        return self._factors

    def starts(self, chosen: Sequence[int | EpisodeStart]) -> Iterator[EpisodeStart]:
        """Draw the starts of many seeds, on several threads where there is work for them; starts stay as they are.

        The threads begin at once, and the iterator waits for them.
        """
        seeds = [start for start in chosen if isinstance(start, int)]
        if self._device is not None and seeds:
            together = self._pool.submit(self._draw_together, seeds)
            drawn = (start for batch in (together,) for start in batch.result())
        else:
            # a Compose keeps state and is no place for threads
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
        cut = self._choose(self._source, rng)
        if self._compose is None:
            levels = draw_levels(self._severity, rng)
            window = (cut.top, cut.left, self._patch_size, self._patch_size)
            degraded = distort_patch(cut.image, window, levels, rng, cut.factor, cut.curve)
            return cut.start(degraded, self._patch_size, seed, levels.as_dict())
        degraded, applied = self._apply_compose(self._compose, cut, rng)
        return cut.start(degraded, self._patch_size, seed, {"transforms": applied})

    def _choose(self, source: ImageSource, rng: np.random.Generator) -> _Cut:
        factor = self._factors[rng.integers(len(self._factors))]
        choices = self._choices[factor]
        index, scale = choices[rng.integers(len(choices))]
        image = source.pixels(index, scale)
        rows, columns = (length // factor - self._patch_size + 1 for length in image.shape[:2])
        top, left = int(rng.integers(rows)), int(rng.integers(columns))
        clean = _cut(image, top * factor, left * factor, self._patch_size * factor)
        curve = draw_curve(clean, self._saturation_prob, rng)
        return _Cut(image, source.identity(index), scale, factor, top, left, curve)

    def _draw_together(self, seeds: Sequence[int]) -> list[EpisodeStart]:
        """The starts of many seeds, distorted on the device, those of a factor at once."""
        assert isinstance(self._source, ImageSource)
        assert self._device is not None
        drawn: list[tuple[_Cut, Place]] = []
        for seed in seeds:
            rng = np.random.default_rng(seed)
            cut, levels = self._choose(self._source, rng), draw_levels(self._severity, rng)
            drawn.append((cut, Place(cut.image, cut.top, cut.left, levels, int(rng.integers(2**63)), cut.curve)))
        starts: dict[int, EpisodeStart] = {}
        for factor in self._factors:
            rows = [row for row, (cut, _) in enumerate(drawn) if cut.factor == factor]
            if not rows:
                continue
            patches = distort_patches([drawn[row][1] for row in rows], self._patch_size, factor, self._device)
            for row, patch in zip(rows, patches.unbind(), strict=True):
                cut, place = drawn[row]
                degraded = cast("npt.NDArray[np.uint8]", patch)
                starts[row] = cut.start(degraded, self._patch_size, seeds[row], place.levels.as_dict())
        return [starts[row] for row in range(len(seeds))]

    def _choices_for(self, source: ImageSource, factor: int) -> list[tuple[int, float]]:
        """Every (image, scale) that has room for a target of this factor."""
        needed = self._patch_size * factor
        choices = [
            (index, scale)
            for scale in SCALES
            for index in range(len(source))
            if min(source.size(index, scale)) >= needed
        ]
        if not choices:
            smaller = f", or upscale=(1,) for images of {self._patch_size} pixels and more" if factor > 1 else ""
            raise ImageError(
                f"no image has the {needed}x{needed} pixels that a patch of the x{factor} task needs: use larger"
                f" images{smaller}"
            )
        return choices

    def _cut_pair(self, source: PairSource, seed: int, rng: np.random.Generator) -> EpisodeStart:
        index = int(rng.integers(len(source)))
        degraded, target, factor = source.degraded.pixels(index), source.target.pixels(index), source.factor(index)
        size = self._patch_size
        top = int(rng.integers(degraded.shape[0] - size + 1))
        left = int(rng.integers(degraded.shape[1] - size + 1))
        return EpisodeStart(
            degraded=_cut(degraded, top, left, size),
            target=_cut(target, top * factor, left * factor, size * factor),
            factor=factor,
            image=source.identity(index),
            seed=seed,
            distortion={"scale": 1.0, "top": top * factor, "left": left * factor},
        )

    def _apply_compose(self, compose: Compose, cut: _Cut, rng: np.random.Generator) -> tuple[Pixels, str]:
        image, factor, top, left, size = cut.image, cut.factor, cut.top, cut.left, self._patch_size
        first_row, first_column = max(0, top - CONTEXT), max(0, left - CONTEXT)
        last_row = min(image.shape[0] // factor, top + size + CONTEXT)
        last_column = min(image.shape[1] // factor, left + size + CONTEXT)
        region = np.ascontiguousarray(
            image[first_row * factor : last_row * factor, first_column * factor : last_column * factor]
        )
        region = apply_curve(region, cut.curve)
        if factor > 1:
            region = quantize(downscale(region.astype(np.float32) / np.float32(255), factor))
        compose.set_random_state(rng, random.Random(int(rng.integers(2**31))))
        result = compose(image=region)
        changed = np.asarray(result["image"])
        if changed.shape != region.shape or changed.dtype != np.uint8:
            raise ValueError(
                f"the distortion must return uint8 of shape {region.shape}, got {changed.dtype} of {changed.shape}"
            )
        applied = json.dumps(result.get("applied_transforms", []), default=_as_plain)
        return _cut(changed, top - first_row, left - first_column, size), applied


def _cut(image: Pixels, top: int, left: int, size: int) -> Pixels:
    return np.ascontiguousarray(image[top : top + size, left : left + size])


def _as_plain(value: Any) -> Any:
    """Numbers as numbers, small arrays as lists, large ones (noise fields) by shape: the seed draws them again."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.size <= _LISTED:
        return value.tolist()
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{list(value.shape)}"
    return str(value)


def own_pair(degraded: ImageLike, target: ImageLike) -> EpisodeStart:
    """A start from a pair of the user's own: paths, or arrays (float in [0, 1] keeps its precision).

    Raises:
        ImageError: an image cannot be used, or the sizes do not fit together.
    """
    images = [open_photo(image, name)[0] for image, name in ((degraded, "degraded"), (target, "target"))]
    factor = pair_factor(images[0].shape[:2], images[1].shape[:2], "the pair")
    name = str(degraded) if isinstance(degraded, (str, os.PathLike)) else "own pair"
    return EpisodeStart(images[0], images[1], factor, name, -1, {})
