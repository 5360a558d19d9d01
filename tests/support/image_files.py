"""Image files of many formats and kinds of samples, and the pictures in them."""

from __future__ import annotations

import importlib
import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

tifffile: Any = importlib.import_module("tifffile")  # it comes with scikit-image; untyped

Array = npt.NDArray[Any]
Byte = npt.NDArray[np.uint8]


def picture(height: int = 30, width: int = 45) -> Byte:
    """Smooth colours, different in every corner."""
    corners = np.random.default_rng(3).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(corners).resize((width, height), Image.Resampling.BICUBIC))


RGB = picture(24, 40)
GREY = RGB[..., 0].copy()
ALPHA = np.linspace(0, 255, RGB.shape[1]).round().astype(np.uint8)[None, :, None].repeat(RGB.shape[0], axis=0)


def encode(image: Image.Image | Array, file_format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def tiff(samples: Array, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, **options)
    return buffer.getvalue()


def deep_png(samples: Array) -> bytes:
    """A 16-bit PNG of grey, RGB or RGBA."""
    ordered = samples if samples.ndim == 2 else np.concatenate([samples[..., 2::-1], samples[..., 3:]], axis=2)
    return cv2.imencode(".png", ordered)[1].tobytes()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_chunk(png: bytes, kind: bytes, content: bytes) -> bytes:
    """The PNG with another chunk after its header."""
    return png[:33] + png_chunk(kind, content) + png[33:]


def exif_of(orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Camera"
    exif[ExifTags.Base.Orientation] = orientation
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime] = 0.5
    return exif.tobytes()


def to16(image: Byte) -> npt.NDArray[np.uint16]:
    return np.asarray(image.astype(np.uint16) * 257)


def to_float(image: Byte) -> npt.NDArray[np.float32]:
    return np.asarray(image / 255, dtype=np.float32)


def encode_deep(suffix: str, pixels: Array) -> bytes:
    """A file of more than 8 bits a sample, written by OpenCV."""
    done, data = cv2.imencode(suffix, pixels)
    assert done
    return data.tobytes()


def float_tiff(value: float) -> bytes:
    """A TIFF of floats with this one among them."""
    pixels = np.full((6, 7, 3), 0.5, np.float32)
    pixels[2, 3, 1] = value
    return encode_deep(".tif", pixels)
