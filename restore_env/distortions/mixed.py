"""Distributions of distortions by name: the protocol's severities, and the mixed world, a table of weighted rows."""

from __future__ import annotations

from collections.abc import Callable
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
from restore_env.distortions.protocol import ANY, LIGHT, MIXED, OTHERS, SINGLE, draw_levels
from restore_env.distortions.saturation import Curve
from restore_env.images.arrays import Pixels

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
    """Share of the patches, percent."""
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
)
"""The mixed world: severity "mixed"."""
_SHARES = np.cumsum([row.weight for row in ROWS]) / sum(row.weight for row in ROWS)
ROW_NAMES = tuple(row.name for row in ROWS)


def draw_distortion(severity: str, rng: Rng, single_share: float = 0.0) -> Distortion:
    """Draw a distortion: from all of :data:`ROWS` for "mixed", from one by its name ("sensor"), or by the protocol.

    Args:
        severity: as a task's.
        rng: source of the random numbers.
        single_share: as for :func:`restore_env.distortions.protocol.draw_levels`.
    """
    if severity == MIXED:
        return ROWS[int(np.searchsorted(_SHARES, rng.random(), side="right"))].draw(rng)
    if severity in OTHERS:
        return ROWS[ROW_NAMES.index(severity)].draw(rng)
    return draw_levels(severity, rng, single_share)


def _log_uniform(rng: Rng, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
