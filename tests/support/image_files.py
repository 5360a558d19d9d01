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


# Colour profiles ------------------------------------------------------------------------------------------------------


def curve(*values: float, kind: int | None = None) -> bytes:
    """A tone curve: of ``kind`` and its parameters, a gamma, or a table of values in [0, 1]."""
    if kind is not None:
        return struct.pack(f">4s4xH2x{len(values)}i", b"para", kind, *(round(value * 65536) for value in values))
    if len(values) == 1:
        return struct.pack(">4s4xIH2x", b"curv", 1, round(values[0] * 256))
    return struct.pack(f">4s4xI{len(values)}H", b"curv", len(values), *(round(value * 65535) for value in values))


def profile(tone: bytes, primaries: Any = None) -> bytes:
    """A colour profile: RGB of these primaries, a row of XYZ for each, or grey."""
    tags = {b"kTRC": tone} if primaries is None else dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), tone)
    for name, row in zip((b"rXYZ", b"gXYZ", b"bXYZ"), () if primaries is None else primaries, strict=False):
        tags[name] = struct.pack(">4s4x3i", b"XYZ ", *(round(value * 65536) for value in row))
    start, body, table = 128 + 4 + 12 * len(tags), b"", struct.pack(">I", len(tags))
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += struct.pack(">4sII", name, start + len(body), len(content))
        body += content
    header = bytearray(128)
    header[:4] = (start + len(body)).to_bytes(4, "big")
    header[8:12], header[36:40] = b"\x04\x20\0\0", b"acsp"
    header[12:24] = b"mntrGRAYXYZ " if primaries is None else b"mntrRGB XYZ "
    header[68:80] = b"\0\0\xf6\xd6\0\1\0\0\0\0\xd3\x2d"
    return bytes(header) + table + body


SRGB_CURVE = curve(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045, kind=3)
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.7141))
P3 = ((0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407))
ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
PROPHOTO = ((0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03134, 0.00009, 0.82491))
PROFILES = {
    "Display P3": profile(SRGB_CURVE, P3),
    "Adobe RGB": profile(curve(2.19921875), ADOBE),
    "ProPhoto": profile(curve(1.8), PROPHOTO),
    "linear": profile(curve(1.0), SRGB),
    "table": profile(curve(*(np.linspace(0, 1, 65) ** 2.6)), P3),
}
"""Profiles of RGB spaces other than sRGB."""


def tiff_of_parts(
    parts: list[bytes], width: int, height: int, compression: int, *, rows: int | None = None, tile: int | None = None
) -> bytes:
    """An RGB TIFF of 8 bits that holds these strips, of ``rows`` each, or square tiles, whatever it declares."""
    places, body = [], b""
    for part in parts:
        places.append(8 + len(body))
        body += part + bytes(len(part) % 2)
    counts = [len(part) for part in parts]
    tags = {256: [width], 257: [height], 258: [8, 8, 8], 259: [compression], 262: [2], 277: [3], 284: [1]}
    if tile is None:
        tags |= {273: places, 278: [rows or height], 279: counts}
    else:
        tags |= {322: [tile], 323: [tile], 324: places, 325: counts}
    start, more = 8 + len(body), b""
    entries = struct.pack("<H", len(tags))
    for tag, values in sorted(tags.items()):
        packed = struct.pack(f"<{len(values)}L", *values)
        if len(values) > 1:
            packed, more = struct.pack("<L", start + 6 + 12 * len(tags) + len(more)), more + packed
        entries += struct.pack("<HHL", tag, 4, len(values)) + packed
    return b"II*\0" + struct.pack("<L", start) + body + entries + bytes(4) + more


def tiff_strip(pixels: Byte, compression: str | None) -> bytes:
    """The pixels as one strip of a TIFF in one of Pillow's compressions."""
    options = {} if compression is None else {"compression": compression}
    data = encode(pixels, "TIFF", tiffinfo={278: len(pixels)}, **options)
    with Image.open(io.BytesIO(data)) as image:
        tags: Any = image.tag_v2
    (start,), (count,) = tags[273], tags[279]
    return data[start : start + count]
