"""The distortions of RL-Restore: Gaussian blur, Gaussian noise, JPEG, and the bicubic x1/4 of the low-resolution task.

All functions take float32 or uint8 RGB arrays ``(H, W, 3)``; float values are in [0, 1]. The environment, the
trainings and the albumentations transforms (:mod:`restore_env.distortions.transforms`) call them.
Source: Yu et al., "Crafting a Toolchain for Image Restoration by Deep Reinforcement Learning", CVPR 2018.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from restore_env.distortions.saturation import Curve, apply_curve
from restore_env.errors import ImageRestoreError
from restore_env.images.arrays import Float, Pixels, to_float

BLUR_EDGES: tuple[float, ...] = tuple(0.5 * k for k in range(11))
"""Edges of the ten blur levels: sigma in pixels."""
NOISE_EDGES: tuple[float, ...] = tuple(5.0 * k for k in range(11))
"""Edges of the ten noise levels: sigma in grey levels of 255."""
JPEG_EDGES: tuple[float, ...] = (100, 80, 60, 50, 40, 35, 30, 25, 20, 15, 10)
"""Edges of the ten JPEG levels: quality."""
SCALES: tuple[float, ...] = (1.0, 2 / 3, 1 / 3)
"""Sizes, relative to the photograph, at which the protocol uses an image."""


class Mixture(NamedTuple):
    """Combinations of distortion levels. Their severity is the sum of the three levels, minus 2."""

    lowest: int
    """Severity, inclusive."""
    highest: int
    """Severity, inclusive."""
    missing: int = 0
    """At most so many of the three distortions are missing (level 0)."""
    pair_weight: int = 1
    """How much likelier a combination of two distortions is than one of three."""


SINGLE, LIGHT, ANY, MIXED, COMPOSITE = "single", "light", "any", "mixed", "composite"
MIXTURES: Mapping[str, Mixture] = MappingProxyType(
    {
        "mild": Mixture(9, 11),
        "moderate": Mixture(12, 17),  # the protocol trains on these alone
        "severe": Mixture(18, 20),
        LIGHT: Mixture(0, 8, missing=1),  # weaker than mild
        ANY: Mixture(0, 20, missing=1, pair_weight=3),  # about as many pairs as triples
    }
)
"""Mixed distortions by name; beside them, :data:`SINGLE` is one distortion alone at any level."""
OTHERS = (MIXED, COMPOSITE, "sensor", "grain", "chroma", "resaved", "defocus", "fine", "clean", "correlated")
"""Severities beyond the protocol (:mod:`restore_env.distortions.mixed`): the mixed world, composites of it, and rows of
its table."""
SEVERITIES: Mapping[str, tuple[int, int]] = MappingProxyType(
    {name: MIXTURES[name][:2] for name in ("mild", "moderate", "severe")}
)
"""The protocol's own mixtures: the lowest and highest severity."""

KERNEL_SIZE = 21
BLUR_RADIUS = KERNEL_SIZE // 2
CUBIC_SUPPORT = 2  # pixels of the smaller image, to either side
MCU = 16  # pixels: a minimum coded unit of JPEG with 4:2:0 chroma
CHROMA_RADIUS = 2  # pixels beyond an MCU's edge that the decoder's chroma upsampling uses

# Needed for equality to the last bit: libjpeg upsamples the chroma of thinner images differently, and OpenCV rounds
# differently in the columns at the right edge that do not fill a vector.
_THIN, _VECTOR = 4, 32


def gaussian_blur(image: Float, sigma: float) -> Float:
    """Blur with a 21x21 Gaussian of ``sigma`` pixels, the edge replicated; ``sigma`` 0 leaves the image as it is."""
    if sigma <= 0:
        return image
    return np.asarray(
        cv2.GaussianBlur(image, (KERNEL_SIZE, KERNEL_SIZE), sigma, borderType=cv2.BORDER_REPLICATE), dtype=np.float32
    )


def gaussian_noise(image: Float, sigma: float, rng: np.random.Generator) -> Float:
    """Add white Gaussian noise of ``sigma`` grey levels (of 255) to a float image; nothing is clipped.

    ``rng`` seeds the noise: the same on every machine, but for the last bit.
    """
    if sigma <= 0:
        return image
    generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
    noise: Float = torch.randn(image.shape, generator=generator).numpy()  # 2.5 times as fast as NumPy's
    noise *= np.float32(sigma / 255)
    noise += image
    return noise


def downscale(image: Float, factor: int) -> Float:
    """Shrink by an integer ``factor`` as MATLAB's imresize: bicubic, a = -0.5, antialiased, the edge mirrored.

    Height and width must be multiples of ``factor``.
    """
    if factor == 1:
        return image
    height, width = image.shape[:2]
    if height % factor or width % factor:
        raise ImageRestoreError(
            f"an image of {width}x{height} cannot be shrunk by {factor}: crop it to a multiple first"
        )
    edge = CUBIC_SUPPORT * factor  # PyTorch leaves out what its kernel has outside the image, so nothing may be there
    padded = np.pad(image, ((edge, edge), (edge, edge), (0, 0)), mode="symmetric")
    nchw = torch.from_numpy(np.ascontiguousarray(padded.transpose(2, 0, 1)))[None]
    size = height // factor + 2 * CUBIC_SUPPORT, width // factor + 2 * CUBIC_SUPPORT
    inside = F.interpolate(nchw, size=size, mode="bicubic", antialias=True)[0, :, CUBIC_SUPPORT:-CUBIC_SUPPORT]
    return np.ascontiguousarray(inside[..., CUBIC_SUPPORT:-CUBIC_SUPPORT].numpy().transpose(1, 2, 0))


def quantize(image: Float) -> Pixels:
    """Round a float image in [0, 1] to 8 bits, clipping what lies outside."""
    scaled = image * np.float32(255)
    np.rint(scaled, out=scaled)
    return np.asarray(np.clip(scaled, 0, 255, out=scaled), dtype=np.uint8)


def jpeg(image: Pixels, quality: int) -> Pixels:
    """Compress and decompress a uint8 RGB image as baseline JPEG (4:2:0) of ``quality`` 1..100."""
    ok, code = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise ImageRestoreError(f"cannot encode an image of shape {image.shape} as JPEG")
    decoded = cv2.imdecode(code, cv2.IMREAD_COLOR)
    assert decoded is not None
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), dtype=np.uint8)


STRENGTHS = ("blur_sigma", "noise_sigma", "jpeg_quality")
"""The numbers of :class:`Levels`."""


@dataclass(frozen=True)
class Levels:
    """The strengths of one mixed distortion, in the order of their application."""

    blur_sigma: float = 0.0
    """Gaussian blur, pixels."""
    noise_sigma: float = 0.0
    """Gaussian noise, grey levels of 255."""
    jpeg_quality: int = 0
    """JPEG quality 1..100; 0 stands for no JPEG (the result is still rounded to 8 bits)."""
    kind: str = ""
    """The row of a table that it was drawn from, if any."""

    def as_dict(self) -> dict[str, Any]:
        """The levels as plain numbers, for ``info`` and records."""
        return {name: value for name, value in vars(self).items() if value != ""}

    def patch(
        self,
        image: Pixels,
        window: tuple[int, int, int, int],
        rng: np.random.Generator,
        factor: int = 1,
        curve: Curve | None = None,
    ) -> Pixels:
        """Cut a window out of the distorted image: :func:`distort_patch`."""
        return distort_patch(image, window, self, rng, factor, curve)

    @property
    def strengths(self) -> tuple[float, float, float]:
        """Blur, noise and JPEG on the protocol's common scale: 0 none, 10 where the tenth level ends."""
        scale = range(len(JPEG_EDGES))
        compression = np.interp(-self.jpeg_quality, [-edge for edge in JPEG_EDGES], scale) if self.jpeg_quality else 0.0
        return self.blur_sigma / BLUR_EDGES[1], self.noise_sigma / NOISE_EDGES[1], float(compression)


def level_triples(lowest: int, highest: int, missing: int = 0) -> npt.NDArray[np.int64]:
    """All (blur, noise, JPEG) triples of levels whose severity, sum - 2, is in [lowest, highest]: ``(N, 3)``.

    Levels are 1..10, and 0 for at most so many distortions as may be ``missing``.
    """
    triples = itertools.product(range(11), repeat=3)
    chosen = [t for t in triples if t.count(0) <= missing and lowest <= sum(t) - 2 <= highest]
    return np.array(chosen, dtype=np.int64)


def _triples_of_mixture(mixture: Mixture) -> npt.NDArray[np.int64]:
    triples = level_triples(mixture.lowest, mixture.highest, mixture.missing)
    pairs = triples[(triples == 0).any(axis=1)]
    return np.concatenate([triples, *[pairs] * (mixture.pair_weight - 1)])


_TRIPLES = {name: _triples_of_mixture(mixture) for name, mixture in MIXTURES.items()}
_TRIPLES[SINGLE] = np.kron(np.eye(3, dtype=np.int64), np.arange(1, 11)[:, None])  # level 0: none of it


@cache
def _triples_of(severity: str) -> npt.NDArray[np.int64]:
    if severity in OTHERS:
        raise ImageRestoreError(f"severity {severity!r} is not of the protocol: choose from {', '.join(_TRIPLES)}")
    parts = []
    for part in severity.split(","):
        numbers = re.fullmatch(r"([0-9]{1,2})(?:-([0-9]{1,2}))?", part)
        triples = level_triples(int(numbers[1]), int(numbers[2] or numbers[1])) if numbers else _TRIPLES.get(part, ())
        if not len(triples):
            raise ImageRestoreError(
                f"unknown severity {severity!r}: choose from {', '.join((*_TRIPLES, *OTHERS))}; or a number from 1 to"
                " 28 or a range of them, as 12-13, of which moderate is 12-17; or several, as 12,17 or mixed+severe"
            )
        parts.append(triples)
    return np.concatenate(parts)


def check_severity(severity: str | float) -> str:
    """Return ``severity`` as text if it is known (a name, a number, a range, or several), else raise ``ValueError``."""
    text = str(severity).removesuffix(".0")
    for part in text.split("+"):
        if part not in OTHERS:
            _triples_of(part)
    return text


def one_of(severity: str, rng: np.random.Generator) -> str:
    """One of several severities that are joined by "+", each as likely as the others."""
    several = severity.split("+")
    return several[int(rng.integers(len(several)))] if len(several) > 1 else severity


def draw_levels(severity: str, rng: np.random.Generator) -> Levels:
    """Draw one of the severity's level triples, all equally likely, and a uniform value inside each level.

    Args:
        severity: a key of :data:`MIXTURES`, or :data:`SINGLE`; or a severity or a range of them in numbers: "12",
            "12-13"; or several of these: "12,17", "moderate,12" (combinations in two of them are twice as likely);
            or one of several: "single+severe".
        rng: source of the random numbers.
    """
    triples = _triples_of(one_of(severity, rng))
    blur, noise, compression = triples[rng.integers(len(triples))]
    return Levels(
        blur_sigma=float(rng.uniform(BLUR_EDGES[blur - 1], BLUR_EDGES[blur])) if blur else 0.0,
        noise_sigma=float(rng.uniform(NOISE_EDGES[noise - 1], NOISE_EDGES[noise])) if noise else 0.0,
        jpeg_quality=round(rng.uniform(JPEG_EDGES[compression], JPEG_EDGES[compression - 1])) if compression else 0,
    )


def distort(image: Pixels, levels: Levels, rng: np.random.Generator, factor: int = 1) -> Pixels:
    """Distort a whole image: blur, then shrink by ``factor``, then noise, then JPEG.

    Args:
        image: uint8 RGB, ``(H, W, 3)``.
        levels: strengths.
        rng: source of the noise.
        factor: 4 for the low-resolution task (height and width must be multiples), 1 for the same size.

    Returns:
        uint8 RGB, ``(H / factor, W / factor, 3)``.
    """
    height, width = image.shape[:2]
    return distort_patch(image, (0, 0, height // factor, width // factor), levels, rng, factor)


def distort_patch(
    image: Pixels,
    window: tuple[int, int, int, int],
    levels: Levels,
    rng: np.random.Generator,
    factor: int = 1,
    curve: Curve | None = None,
) -> Pixels:
    """Cut a window out of the distorted image, computing only what the window needs.

    Except for the noise (drawn for fewer pixels) the result equals the same window of the whole distorted image to the
    bit: blur uses the real surroundings, and the JPEG grid is that of the whole image.

    Args:
        image: the whole clean image, uint8 RGB ``(H, W, 3)``.
        window: top, left, height, width in pixels of the distorted image (that is, after shrinking by ``factor``).
        levels: strengths.
        rng: source of the noise.
        factor: as for :func:`distort`.
        curve: saturation curve, applied to the clean image first.

    Returns:
        uint8 RGB, ``(height, width, 3)``.
    """
    top, left, height, width = window
    rows = _Span.of(top, height, image.shape[0] // factor, factor, levels)
    columns = _Span.of(left, width, image.shape[1] // factor, factor, levels)
    region = to_float(apply_curve(image[rows.source, columns.source], curve))
    region = downscale(gaussian_blur(region, levels.blur_sigma), factor)[rows.inside, columns.inside]
    coded = quantize(gaussian_noise(region, levels.noise_sigma, rng))
    if levels.jpeg_quality:
        coded = jpeg(coded, levels.jpeg_quality)
    return np.ascontiguousarray(coded[rows.patch, columns.patch])


@dataclass(frozen=True)
class _Span:
    """One axis of a patch: the source pixels it needs, the downscaled ones to compress, and those of them to keep."""

    source: slice
    inside: slice
    patch: slice

    @classmethod
    def of(cls, start: int, length: int, limit: int, factor: int, levels: Levels) -> _Span:
        stop = start + length
        if not 0 <= start < stop <= limit:
            raise ImageRestoreError(f"the window {start}..{stop} does not lie inside the image's {limit} pixels")
        if levels.jpeg_quality:
            coded_start = max(0, (start - CHROMA_RADIUS) // MCU * MCU)
            coded_stop = min(limit, -(-(stop + CHROMA_RADIUS) // MCU) * MCU)
            if coded_stop - coded_start <= _THIN:
                coded_start = max(0, coded_start - MCU)
        else:
            coded_start, coded_stop = start, stop
        blur_margin = BLUR_RADIUS if levels.blur_sigma > 0 else 0
        margin = -(-blur_margin // factor) + (CUBIC_SUPPORT if factor > 1 else 0)
        source_start, source_stop = max(0, coded_start - margin), min(limit, coded_stop + margin)
        if blur_margin and source_stop == limit:
            source_start -= source_start % _VECTOR
        return cls(
            source=slice(source_start * factor, source_stop * factor),
            inside=slice(coded_start - source_start, coded_stop - source_start),
            patch=slice(start - coded_start, stop - coded_start),
        )
