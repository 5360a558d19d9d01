"""Distributions of distortions by name: the protocol's severities, the mixed world and composites of it.

The mixed world is a table of weighted rows; in a composite the distortion varies from one part of the image to another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from restore_env.distortions.photographic import (
    Blur,
    ChromaNoise,
    Defocus,
    Denoise,
    Grain,
    Photographic,
    Save,
    SensorNoise,
    Sharpen,
    Step,
)
from restore_env.distortions.protocol import ANY, COMPOSITE, LIGHT, MIXED, OTHERS, SINGLE, draw_levels, one_of
from restore_env.distortions.saturation import Curve
from restore_env.images.arrays import Float, Pixels

Rng = np.random.Generator


class Distortion(Protocol):
    """A drawn distortion: by the protocol (``Levels``) or of a photograph (``Photographic``)."""

    @property
    def strengths(self) -> tuple[float, float, float]:
        """Blur, noise and compression on the protocol's scale: 0 none, 10 the strongest."""

    def as_dict(self) -> dict[str, Any]:
        """Its strengths as plain numbers and strings."""

    def patch(
        self, image: Pixels, window: tuple[int, int, int, int], rng: Rng, factor: int = 1, curve: Curve | None = None
    ) -> Pixels:
        """Cut a window out of the distorted image."""


def draw_sensor(rng: Rng) -> Photographic:
    """A photograph of a small camera: sensor noise, its removal and sharpening in the camera, JPEG."""
    steps: list[Step] = [Blur(rng.uniform(0.3, 1.2))] if rng.random() < 0.3 else []
    steps.append(
        SensorNoise(
            shot=_log_uniform(rng, 3e-4, 2e-2),
            read=_log_uniform(rng, 5e-4, 2e-2),
            red=float(rng.uniform(1.3, 2.4)),
            blue=float(rng.uniform(1.2, 2.2)),
            demosaicing="edges" if rng.random() < 0.5 else "bilinear",
            oversampling=float(rng.uniform(1.2, 2.0)) if rng.random() < 0.4 else 1.0,
            phase=int(rng.integers(4)),
        )
    )
    if rng.random() < 0.3:
        steps.append(Denoise(float(rng.uniform(10, 40))))
    if rng.random() < 0.4:
        steps.append(Sharpen(float(rng.uniform(0.3, 1.2)), float(rng.uniform(0.6, 1.5))))
    return Photographic("sensor", (*steps, Save("jpg", int(rng.integers(60, 99)))))


def draw_grain(rng: Rng) -> Photographic:
    """Film grain, often without colour, and a scan's JPEG."""
    colour = 0.0 if rng.random() < 0.5 else float(rng.uniform(0, 1))
    grain = Grain(_log_uniform(rng, 4, 40), float(rng.uniform(0, 1.2)), colour)
    return Photographic("grain", (grain, Save("jpg", int(rng.integers(75, 99)))))


def draw_correlated(rng: Rng) -> Photographic:
    """Noise that neighbouring pixels share, as after resizing; every second time it is saved without loss."""
    grain = Grain(_log_uniform(rng, 4, 40), float(rng.uniform(0.3, 1.5)), float(rng.uniform(0, 1)))
    saved: tuple[Step, ...] = (Save("jpg", int(rng.integers(75, 99))),) if rng.random() < 0.5 else ()
    return Photographic("correlated", (grain, *saved))


def draw_chroma(rng: Rng) -> Photographic:
    """Coloured noise of low light, with some grain."""
    blotches = ChromaNoise(_log_uniform(rng, 5, 40), float(rng.uniform(0.5, 3)))
    grain = Grain(float(rng.uniform(0, 10)), float(rng.uniform(0, 0.8)), 0.5)
    return Photographic("chroma", (blotches, grain, Save("jpg", int(rng.integers(70, 99)))))


def draw_resaved(rng: Rng) -> Photographic:
    """Saved once or twice as JPEG or WebP, down to quality 5, the second time with another grid."""
    saves = [
        Save("jpg" if rng.random() < 0.7 else "webp", int(rng.integers(5, 86)), int(rng.integers(8)) if again else 0)
        for again in range(1 + int(rng.random() < 0.4))
    ]
    return Photographic("resaved", tuple(saves))


def draw_defocus(rng: Rng) -> Photographic:
    """Slightly out of focus."""
    return Photographic("defocus", (Defocus(float(rng.uniform(0.6, 2.5))), Save("jpg", int(rng.integers(85, 99)))))


def draw_fine(rng: Rng) -> Photographic:
    """Saved as JPEG of high quality."""
    return Photographic("fine", (Save("jpg", int(rng.integers(90, 100))),))


def draw_clean(rng: Rng) -> Photographic:
    """Nothing wrong: the photograph itself."""
    return Photographic("clean")


@dataclass(frozen=True)
class Row:
    """A kind of distortion in the mixed world."""

    name: str
    weight: float
    """Share of the patches, percent; 0: drawn only by its name."""
    draw: Callable[[Rng], Distortion]


def _of_protocol(name: str, weight: float, severity: str) -> Row:
    return Row(name, weight, lambda rng: replace(draw_levels(severity, rng), kind=name))


ROWS = (
    _of_protocol("mixture", 30, ANY),
    _of_protocol("single", 15, SINGLE),
    _of_protocol("light", 15, LIGHT),
    Row("sensor", 14, draw_sensor),
    Row("grain", 5, draw_grain),
    Row("chroma", 4, draw_chroma),
    Row("resaved", 6, draw_resaved),
    Row("defocus", 3, draw_defocus),
    Row("fine", 4, draw_fine),
    Row("clean", 4, draw_clean),
    Row("correlated", 0, draw_correlated),
)
"""The mixed world: severity "mixed"."""
_SHARES = np.cumsum([row.weight for row in ROWS]) / sum(row.weight for row in ROWS)
ROW_NAMES = tuple(row.name for row in ROWS)


def draw_distortion(severity: str, rng: Rng) -> Distortion:
    """Draw a distortion: from all of :data:`ROWS` for "mixed", from one by its name ("sensor"), or by the protocol.

    Args:
        severity: as a task's; "composite" is :func:`draw_composite`; of several, as in "mixed+severe",
            each is as likely as the others.
        rng: source of the random numbers.
    """
    severity = one_of(severity, rng)
    if severity == MIXED:
        return ROWS[int(np.searchsorted(_SHARES, rng.random(), side="right"))].draw(rng)
    if severity == COMPOSITE:
        return draw_composite(rng)
    if severity in OTHERS:
        return ROWS[ROW_NAMES.index(severity)].draw(rng)
    return draw_levels(severity, rng)


@dataclass(frozen=True)
class Composite:
    """A distortion that varies in space: an image put together from two or four distorted ones."""

    parts: Sequence[Sequence[Distortion]]
    """By rows and columns: two halves in a row or in a column, or four quadrants."""
    row: float
    """Where the upper parts end, 0 to 1 of the image's height, if there are two rows."""
    column: float
    """Where the left parts end, 0 to 1 of the image's width, if there are two columns."""
    softness: float = 0.0
    """Pixels over which one part passes into the next; 0: a hard border."""

    @property
    def strengths(self) -> tuple[float, float, float]:
        """Blur, noise and compression of the parts in which they are strongest."""
        blur, noise, compression = zip(*(part.strengths for row in self.parts for part in row), strict=True)
        return max(blur), max(noise), max(compression)

    def as_dict(self) -> dict[str, Any]:
        """The borders, and the strengths of each part as "part1_noise_sigma" and the like, row by row."""
        rows, columns = len(self.parts), len(self.parts[0])
        described: dict[str, Any] = {"kind": COMPOSITE, "rows": rows, "columns": columns, "softness": self.softness}
        borders = (("row", self.row, rows), ("column", self.column, columns))
        described |= {name: place for name, place, count in borders if count > 1}
        for number, part in enumerate((part for row in self.parts for part in row), 1):
            described |= {f"part{number}_{name}": value for name, value in part.as_dict().items()}
        return described

    def patch(
        self, image: Pixels, window: tuple[int, int, int, int], rng: Rng, factor: int = 1, curve: Curve | None = None
    ) -> Pixels:
        """Cut a window out of the composite; of the parts, only those are computed that it shows."""
        top, left, height, width = window
        down = self._shares(len(self.parts), self.row * (image.shape[0] // factor) - top, height)
        across = self._shares(len(self.parts[0]), self.column * (image.shape[1] // factor) - left, width)
        result = np.zeros((height, width, 3), np.float32)
        for parts, rows in zip(self.parts, down, strict=True):
            for part, columns in zip(parts, across, strict=True):
                weights, noise = np.outer(rows, columns)[..., None], np.random.default_rng(rng.integers(2**63))
                if weights.any():
                    result += weights * part.patch(image, window, noise, factor, curve)
        return np.rint(result).astype(np.uint8)

    def _shares(self, parts: int, border: float, length: int) -> Float:
        """The share of each of one or two parts in the pixels along a side: ``(parts, length)``."""
        beyond = np.arange(length) + 0.5 - border
        if parts == 1:
            second = np.zeros(length)
        elif self.softness > 0:
            second = np.clip(beyond / self.softness + 0.5, 0, 1)
        else:
            second = np.where(beyond > 0, 1.0, 0.0)
        return np.stack([1 - second, second])[:parts].astype(np.float32)


COMPOSITE_SHAPES = ((1, 2), (2, 1), (2, 2))
"""Rows and columns of the composites: severity "composite"."""


def draw_composite(rng: Rng) -> Composite:
    """Halves or quadrants of the mixed world, with a hard or a soft border somewhere in the middle half."""
    rows, columns = COMPOSITE_SHAPES[int(rng.integers(len(COMPOSITE_SHAPES)))]
    parts = tuple(tuple(draw_distortion(MIXED, rng) for _ in range(columns)) for _ in range(rows))
    row, column = (float(rng.uniform(0.25, 0.75)) for _ in range(2))
    return Composite(parts, row, column, float(rng.uniform(2, 32)) if rng.random() < 0.5 else 0.0)


def _log_uniform(rng: Rng, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
