"""Rendered text and line art, to train super-resolvers on beside photographs.

Fonts are the DejaVu families that Matplotlib brings along. Everything is drawn at several times its size and reduced,
so that edges are anti-aliased as on a screen.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from restore_env.images.arrays import Pixels

OVERSAMPLING = 2
SIZES = (14, 96)
"""Pixels of letters, from the smallest to the largest; small ones are as frequent as large ones by octave."""
WIDTHS = (1, 5)
"""Pixels of lines, at the oversampled size."""
DARK_SHARE = 0.3
"""Of drawings with light ink on dark ground."""
COLOUR_SHARE = 0.4
"""Of drawings whose ink and ground have colours."""
LETTERS = string.ascii_lowercase * 4 + string.ascii_uppercase + string.digits + ".,:;-()%&?!/"

Colour = tuple[int, int, int]
Draw = Callable[[ImageDraw.ImageDraw, int, Colour, np.random.Generator], None]


def drawing(size: int, rng: np.random.Generator, kind: str | None = None) -> Pixels:
    """Draw a square of text, lines or a table: uint8 RGB ``(size, size, 3)``.

    Args:
        size: pixels along a side.
        rng: what is drawn, in which colours.
        kind: a key of :data:`KINDS`; None draws one of them.

    Raises:
        ValueError: a size below 1.
    """
    if size < 1:
        raise ValueError(f"a drawing has 1 pixel or more along a side, not {size}")
    ink, ground = _colours(rng)
    large = size * OVERSAMPLING
    canvas = Image.new("RGB", (large, large), ground)
    kind = kind or list(KINDS)[int(rng.integers(len(KINDS)))]
    KINDS[kind](ImageDraw.Draw(canvas), large, ink, rng)
    return np.asarray(canvas.resize((size, size), Image.Resampling.BOX))


@lru_cache(maxsize=256)
def _font(number: int, size: int) -> ImageFont.FreeTypeFont:
    paths = font_files()
    return ImageFont.truetype(paths[number % len(paths)], size)


@lru_cache(maxsize=1)
def font_files() -> tuple[Path, ...]:
    """The DejaVu fonts that hold letters, of Matplotlib's data."""
    import matplotlib  # of the extra that training needs

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return tuple(path for path in sorted(folder.glob("DejaVu*.ttf")) if "Display" not in path.name)


def _colours(rng: np.random.Generator) -> tuple[Colour, Colour]:
    """Ink and ground that differ well in brightness."""
    dark, light = int(rng.integers(0, 90)), int(rng.integers(170, 256))
    pair = [np.full(3, dark), np.full(3, light)]
    if rng.random() < COLOUR_SHARE:
        pair = [np.clip(colour + rng.integers(-60, 61, 3), 0, 255) for colour in pair]
    if rng.random() < DARK_SHARE:
        pair.reverse()
    ink, ground = ((int(red), int(green), int(blue)) for red, green, blue in pair)
    return ink, ground


def _text(draw: ImageDraw.ImageDraw, size: int, ink: Colour, rng: np.random.Generator) -> None:
    """Lines of words in one font."""
    smallest, largest = np.log2(SIZES)
    height = round(OVERSAMPLING * 2 ** float(rng.uniform(smallest, largest)))
    font = _font(int(rng.integers(len(font_files()))), height)
    top = -int(rng.integers(height))
    while top < size:
        words = ["".join(rng.choice(list(LETTERS), int(rng.integers(1, 10)))) for _ in range(3 + size // height)]
        draw.text((-int(rng.integers(height)), top), " ".join(words), fill=ink, font=font)
        top += round(height * 1.3)


def _lines(draw: ImageDraw.ImageDraw, size: int, ink: Colour, rng: np.random.Generator) -> None:
    """Segments, circles, polygons and hatching."""
    for _ in range(int(rng.integers(4, 14))):
        width = int(rng.integers(*WIDTHS, endpoint=True))
        one, other = (tuple(map(int, rng.integers(-size // 4, size * 5 // 4, 2))) for _ in range(2))
        shape = rng.integers(4)
        if shape == 0:
            draw.line((*one, *other), fill=ink, width=width)
        elif shape == 1:
            radius = int(rng.integers(3, max(4, size // 2)))
            draw.ellipse((one[0] - radius, one[1] - radius, one[0] + radius, one[1] + radius), outline=ink, width=width)
        elif shape == 2:
            points = [(int(x), int(y)) for x, y in rng.integers(0, size, (int(rng.integers(3, 6)), 2))]
            draw.polygon(points, outline=ink, fill=ink if rng.random() < 0.3 else None, width=width)
        else:
            _hatching(draw, size, ink, rng)


def _hatching(draw: ImageDraw.ImageDraw, size: int, ink: Colour, rng: np.random.Generator) -> None:
    """Parallel lines within a rectangle."""
    left, top = (int(place) for place in rng.integers(0, size, 2))
    side, step = int(rng.integers(8, max(9, size // 2))), int(rng.integers(5, 20))
    slope = float(rng.uniform(-1, 1))
    for offset in range(0, side, step):
        draw.line((left, top + offset, left + side, top + offset + slope * side), fill=ink, width=2)


def _table(draw: ImageDraw.ImageDraw, size: int, ink: Colour, rng: np.random.Generator) -> None:
    """Ruled cells with a word in each, and some filled bars."""
    height = OVERSAMPLING * int(rng.integers(SIZES[0], 40))
    font = _font(int(rng.integers(len(font_files()))), height)
    across, down = int(height * rng.uniform(2, 6)), int(height * rng.uniform(1.4, 2.2))
    left, top = -int(rng.integers(across)), -int(rng.integers(down))
    ruled, width = rng.random() < 0.7, int(rng.integers(1, 4))
    for y in range(top, size, down):
        for x in range(left, size, across):
            if ruled:
                draw.rectangle((x, y, x + across, y + down), outline=ink, width=width)
            if rng.random() < 0.1:
                draw.rectangle((x + 4, y + 4, x + across // 2, y + down - 4), fill=ink)
            else:
                word = "".join(rng.choice(list(LETTERS), int(rng.integers(1, 6))))
                draw.text((x + height // 3, y + height // 6), word, fill=ink, font=font)


KINDS: Mapping[str, Draw] = MappingProxyType({"text": _text, "lines": _lines, "table": _table})
"""What is drawn, equally often."""
