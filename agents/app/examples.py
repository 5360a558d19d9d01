"""Ten photographs that come with scikit-image, nine of them distorted: the page's examples, and those of the gallery.

All are in the public domain, CC0, or without known copyright restrictions (the docstrings of ``skimage.data``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from restore_env.distortions.photographic import Grain, Save, SensorNoise
from restore_env.distortions.protocol import Levels, distort, quantize
from restore_env.images.arrays import Pixels, to_float
from restore_env.images.decoding import Photo, read_image
from restore_env.images.encoding import write_image
from restore_env.images.sources import embedded_paths

Distort = Callable[[Pixels, np.random.Generator], Pixels]
LARGEST = (480, 640)
"""Height and width of an example at most: the middle of the photograph."""


@dataclass(frozen=True)
class Row:
    """A photograph and what happens to it."""

    name: str
    """Of its file."""
    caption: str
    """In a word or two."""
    text: str
    """What it shows, and what is wrong."""
    distort: Distort | None
    """None: the photograph as it is."""
    scale: int = 1
    """How much smaller it becomes."""
    damaged: bool = False
    """The photograph itself has a defect, so nothing is known to compare a result with."""


@dataclass(frozen=True)
class Example:
    """A photograph to restore, as a file."""

    row: Row
    path: Path
    clean: Pixels | None
    """Ground truth, uint8 RGB, ``row.scale`` times as high and wide; None if nobody knows it."""


def _levels(blur: float = 0, noise: float = 0, quality: int = 0, scale: int = 1) -> Distort:
    return lambda image, rng: distort(image, Levels(blur, noise, quality), rng, scale)


def _low_light(image: Pixels, rng: np.random.Generator) -> Pixels:
    sensor = SensorNoise(shot=0.008, read=0.008, red=1.8, blue=1.6, demosaicing="edges")
    return quantize(Save("jpg", 90).apply(sensor.apply(to_float(image), rng), rng))


def _film(image: Pixels, rng: np.random.Generator) -> Pixels:
    return quantize(Save("jpg", 80).apply(Grain(18, 0.7, 0).apply(to_float(image), rng), rng))


ROWS = (
    Row("coffee.png", "mixture", "Coffee, blurred, noisy and compressed", _levels(1.6, 18, 45)),
    Row("astronaut.png", "noise", "Astronaut, noisy", _levels(noise=25)),
    Row("chelsea.png", "JPEG", "Cat, compressed", _levels(quality=12)),
    Row("rocket.jpg", "low light", "Rocket, in low light", _low_light),
    Row("hubble_deep_field.jpg", "blur", "Galaxies, blurred and a little noisy", _levels(1.0, 12, 70)),
    Row("camera.png", "grey", "Cameraman, blurred and noisy", _levels(0.8, 20)),
    Row("coins.png", "film", "Coins, on film", _film),
    Row("ihc.png", "small", "Tissue, at a quarter of its size", _levels(scale=4), scale=4),
    Row("clock_motion.png", "moved", "Clock, taken with a moving camera", None, damaged=True),
    Row("retina.jpg", "clean", "Retina, with nothing wrong", None),
)


def make_examples(folder: Path) -> list[Example]:
    """Write the examples into a folder, as PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    home = embedded_paths()[0].parent
    return [_make(row, home / row.name, folder, seed) for seed, row in enumerate(ROWS)]


def _make(row: Row, source: Path, folder: Path, seed: int) -> Example:
    photo = read_image(source)
    height, width = (
        min(length, most) // row.scale * row.scale for length, most in zip(photo.pixels.shape, LARGEST, strict=False)
    )
    top, left = (photo.pixels.shape[0] - height) // 2, (photo.pixels.shape[1] - width) // 2
    clean = np.ascontiguousarray(photo.pixels[top : top + height, left : left + width])
    pixels = clean if row.distort is None else row.distort(clean, np.random.default_rng(seed))
    if photo.grey:
        pixels = np.repeat(pixels[..., :1], 3, axis=2)
    path = folder / f"{source.stem}.png"
    write_image(path, Photo(pixels, grey=photo.grey))
    return Example(row, path, None if row.damaged else clean)
