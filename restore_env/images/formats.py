"""The formats of image files: what is read, what is written, and what each can hold."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from PIL import Image

from restore_env.extras import require_extra


@dataclass(frozen=True)
class Format:
    """A format of image files."""

    name: str
    plugins: tuple[str, ...]
    """What Pillow calls it."""
    suffixes: tuple[str, ...]
    """File names, lower case; the first one is that of files that are written."""
    written: bool = False
    alpha: bool = False
    """Whether a written file holds transparency."""
    grey: bool = False
    """Whether a written file may have one channel."""
    deep: bool = False
    """Whether a written file holds 16 bits."""
    lossy: bool = False
    """Whether a written file can be of a chosen quality."""
    kept: tuple[str, ...] = ()
    """The metadata that a written file holds."""
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Pillow's options for a written file."""
    longest: int | None = None
    """Most pixels a side that it holds."""
    extra: str | None = None
    """The extra of the package that is needed to read it."""
    densest: int = 2**15
    """Pixels that a byte of a file stands for at most; those that predict whole images know no bound, but files do."""


FORMATS = (
    Format(
        *("PNG", ("PNG",), (".png",), True, True, True, True),
        kept=("profile", "EXIF", "XMP", "DPI", "text"),
        options=MappingProxyType({"compress_level": 4}),  # a third of the time of 6, for files that are 1 % larger
    ),
    Format(
        *("JPEG", ("JPEG", "MPO"), (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), True, False, True, False, True),
        kept=("profile", "EXIF", "XMP", "DPI", "IPTC", "comment"),
        options=MappingProxyType({"quality": 95, "subsampling": 0}),
        longest=65500,
        densest=1024,
    ),
    Format(
        *("WebP", ("WEBP",), (".webp",), True, True, False, False, True),
        kept=("profile", "EXIF", "XMP"),
        options=MappingProxyType({"lossless": True, "exact": True}),
        longest=16383,
    ),
    Format(
        *("TIFF", ("TIFF",), (".tif", ".tiff"), True, True, True, True),
        kept=("profile", "EXIF", "XMP", "DPI", "IPTC"),
    ),
    Format("AVIF", ("AVIF",), (".avif", ".avifs")),
    Format("HEIF", ("HEIF",), (".heic", ".heif", ".hif"), extra="heif"),
    Format("JPEG 2000", ("JPEG2000",), (".jp2", ".j2k", ".j2c", ".jpx", ".jpf")),
    Format("PNM", ("PPM",), (".ppm", ".pgm", ".pbm", ".pnm"), densest=8),
    Format("TGA", ("TGA",), (".tga",), densest=128),
    Format("BMP", ("BMP",), (".bmp",), densest=128),
    Format("GIF", ("GIF",), (".gif",), densest=4096),
)
"""Every format that is read."""

SUFFIXES = tuple(suffix for kind in FORMATS for suffix in kind.suffixes)
"""File names that a folder is searched for, lower case."""
WRITTEN: Mapping[str, Format] = MappingProxyType(
    {suffix: kind for kind in FORMATS if kind.written for suffix in kind.suffixes if suffix != ".mpo"}
)
"""The format that a file of each suffix is written in."""

JPEG_END = b"\xff\xd9"
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # segments that hold the picture's size
_ISO_BRANDS = slice(8, 64)  # the bytes of an ISO media file that name what it holds
_TGA_END = b"TRUEVISION-XFILE.\0"


def jpeg_has_end(data: bytes) -> bool:
    """Whether a JPEG's first picture, of which thumbnails are no part, has its end marker."""
    *_, (_, start) = _jpeg_segments(data)
    return data.find(JPEG_END, start) >= 0


def jpeg_covers(data: bytes, width: int, height: int) -> bool:
    """Whether a JPEG's picture has its end marker, and this size or more."""
    down, across = 0, 0
    for kind, at in _jpeg_segments(data):
        if kind in _JPEG_FRAMES:
            down, across = (int.from_bytes(data[at + first : at + first + 2], "big") for first in (5, 7))
    return across >= width and down >= height and jpeg_has_end(data)


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Kind and place of each segment of a JPEG before its picture, and of what follows them."""
    at = 2
    while data[at : at + 1] == b"\xff" and data[at : at + 2] != b"\xff\xda":
        fill = data[at + 1 : at + 2] == b"\xff"  # any number of these bytes may precede a marker
        if not fill:
            yield data[at + 1] if at + 1 < len(data) else 0, at
        at += 1 if fill else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    yield 0, at


def plugins_for(data: bytes, name: str) -> tuple[str, ...]:
    """Names of Pillow's plugins that may read a file; without those of TIFF, which has a reader of its own.

    Raises:
        ImportError: a file that needs a package that is not installed; the message is one line.
    """
    Image.init()
    plugins = [plugin for kind in FORMATS for plugin in kind.plugins if kind.extra is None and plugin in Image.OPEN]
    plugins.remove("TIFF")
    if not (name.lower().endswith(".tga") or data.endswith(_TGA_END)):
        plugins.remove("TGA")  # its files have no mark of their own: anything might be one
    brands = data[_ISO_BRANDS]
    if data[4:8] == b"ftyp" and b"avif" not in brands and any(mark in brands for mark in (b"hei", b"hev", b"mif1")):
        require_extra("heif", "HEIC or HEIF")
        importlib.import_module("pillow_heif").register_heif_opener()
        plugins = ["HEIF"]
    return tuple(plugins)
