"""Small image files of every format that is read."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from PIL import ExifTags, Image


def image_files() -> list[bytes]:
    """Files of 40x24 pixels, of each format and of the kinds of samples and compressions that they have."""
    return list(_files())


def _files() -> Iterator[bytes]:
    corners = np.random.default_rng(3).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    colour = Image.fromarray(corners).resize((40, 24), Image.Resampling.BICUBIC)
    grey, deep = colour.convert("L"), np.asarray(colour).astype(np.uint16) * 257
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    turned = {"exif": exif.tobytes()}
    rows: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (colour, "PNG", turned),
        (grey, "PNG", {}),
        (colour.quantize(16), "PNG", {"transparency": 3}),
        (colour.convert("RGBA"), "PNG", {"dpi": (72, 72)}),
        (colour, "JPEG", turned),
        (colour, "JPEG", {"progressive": True, "subsampling": 2}),
        (colour.convert("CMYK"), "JPEG", {}),
        (colour, "MPO", {"save_all": True, "append_images": [colour]}),
        (colour, "WEBP", turned),
        (colour.convert("RGBA"), "WEBP", {"lossless": True}),
        (colour, "GIF", {"save_all": True, "append_images": [grey.convert("RGB")]}),
        (colour, "BMP", {}),
        (colour, "TGA", {"compression": "tga_rle"}),
        (colour, "PPM", {}),
        (grey, "PPM", {}),
        (grey.convert("1"), "PPM", {}),
        (colour, "JPEG2000", {}),
        (colour, "AVIF", {"speed": 10}),
        (colour, "TIFF", turned),
        *((colour, "TIFF", {"compression": kind}) for kind in _TIFF_COMPRESSIONS),
        (colour.convert("RGBA"), "TIFF", {"compression": "tiff_lzw", "save_all": True, "append_images": [grey]}),
        (grey.convert("1"), "TIFF", {"compression": "group4"}),
    ]
    for image, name, options in rows:
        yield _encoded(image, name, options)
    for suffix, pixels in ((".png", deep), (".tif", deep), (".tif", np.asarray(colour, np.float32) / 255)):
        yield cv2.imencode(suffix, pixels)[1].tobytes()


_TIFF_COMPRESSIONS = ("tiff_lzw", "packbits", "tiff_adobe_deflate", "jpeg", "zstd", "lzma")


def _encoded(image: Image.Image, name: str, options: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()
