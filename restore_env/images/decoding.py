"""Decoding of image files to uint8 RGB arrays."""

from __future__ import annotations

import contextlib
import io
import os
import threading
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from restore_env.errors import ImageRestoreError
from restore_env.images.arrays import Pixels
from restore_env.images.tiff_layout import TiffLayout

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")
"""File names that a folder is searched for, lower case."""
MAX_PIXELS = 178_956_970
"""An image that declares more pixels is refused before it is decoded (Pillow's own bound)."""

_READ_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")

_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0")
_MOST_SAMPLES = 6  # per pixel that Pillow can interpret
_PNG_DEPTH_AT = 24  # the byte of a PNG file that holds its bit depth
_ICC_SPACE = slice(16, 20)  # the bytes of a colour profile that name the space it describes
_STORAGE = ((254, 266), (273, 274), (277, 281), (284, 284), (288, 293), (297, 297), (317, 317), (320, 347), (512, 532))
_LAYOUT_TAGS = frozenset((700, 34377, 34675, *(tag for first, last in _STORAGE for tag in range(first, last + 1))))
"""EXIF tags about how the pixels were stored, orientation among them, which do not apply to a file written later."""

_FROM_16_BITS = ((np.arange(65536) * 255 + 32767) // 65535).astype(np.uint8)


class ImageError(ImageRestoreError):
    """An image cannot be used; the message names it and says what is wrong, in one line."""


@dataclass(frozen=True)
class Photo:
    """A decoded image and the metadata that is saved with its result."""

    pixels: npt.NDArray[np.uint8]
    """uint8 RGB, ``(H, W, 3)``, upright."""
    icc_profile: bytes | None = None
    """The colour profile, if it is one of RGB."""
    exif: bytes | None = None
    """EXIF without the orientation, which has been applied."""


def as_rgb8(array: npt.NDArray[Any], name: str = "array") -> npt.NDArray[np.uint8]:
    """Convert an image array to uint8 RGB ``(H, W, 3)``.

    Accepted: ``(H, W)`` and ``(H, W, 1)`` grey, ``(H, W, 2)`` grey with alpha, ``(H, W, 3)`` RGB, ``(H, W, 4)`` RGBA;
    uint8, uint16 (65535 becomes 255), bool, or float in [0, 1]. Alpha is composited over white.

    Raises:
        ImageError: another shape or type, no pixels, or floats that are not finite or lie outside [0, 1].
    """
    array = np.asarray(array)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4) or array.size == 0:
        raise ImageError(f"{name}: shape {array.shape} is no image; expected (H, W) or (H, W, 1 to 4)")
    if array.dtype == np.uint8:
        pixels: npt.NDArray[Any] = array
    elif array.dtype == np.uint16:
        pixels = _FROM_16_BITS[array]
    elif array.dtype == np.bool_:
        pixels = array.astype(np.uint8) * np.uint8(255)
    elif np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all():
            raise ImageError(f"{name}: holds values that are not finite (NaN or infinity)")
        if array.min() < 0 or array.max() > 1:
            raise ImageError(f"{name}: float values must lie in [0, 1], got {array.min():g} to {array.max():g}")
        pixels = np.rint(array * 255).astype(np.uint8)
    else:
        raise ImageError(f"{name}: {array.dtype} values; expected uint8, uint16, bool, or float in [0, 1]")
    channels = pixels.shape[2]
    if channels in (2, 4):
        alpha = pixels[..., -1:].astype(np.uint32)
        pixels = ((pixels[..., :-1] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    return np.ascontiguousarray(pixels)


def read_image(path: str | os.PathLike[str]) -> Photo:
    """Read a PNG, JPEG, WebP, TIFF, BMP or GIF file.

    EXIF orientation is applied; grey, palette and CMYK become RGB; 16 bits become 8 (65535 becomes 255), and so do
    the floats in [0, 1] that a TIFF may hold; alpha is composited over white; of an animation the first frame is taken.

    Raises:
        ImageError: the file is missing, is no such image, is damaged, or declares more than ``MAX_PIXELS`` pixels.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise ImageError(f"{path}: is {'a folder' if path.is_dir() else 'no regular file'}, not an image file")
        data = path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror or error})") from None
    return decode_image(data, str(path))


def decode_image(data: bytes, name: str = "image") -> Photo:
    """Decode a file's bytes as :func:`read_image` does; ``name`` is what errors call it. Safe in several threads."""
    if not data:
        raise ImageError(f"{name}: the file is empty")
    try:
        with _SILENCE:
            return _decode_tiff(data, name) if data[:4] in _TIFF_STARTS else _decode(data, name)
    except ImageError:
        raise
    except UnidentifiedImageError:
        kinds = ", ".join(suffix[1:] for suffix in SUFFIXES)
        raise ImageError(f"{name}: damaged, or not an image of a supported kind ({kinds})") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{name}: declares more than {MAX_PIXELS / 1e6:.0f} megapixels and is refused") from None
    except Exception as error:  # decoders raise whatever a broken file provokes
        raise ImageError(f"{name}: damaged or not a supported image ({one_line(error)})") from None


def one_line(error: Exception) -> str:
    """An exception's message in one line, or its name if it has none."""
    return " ".join(str(error).split()) or type(error).__name__


class _Silence:
    """Suppresses warnings and logs of decoders, in any number of threads: the error that is raised is enough.

    ``warnings.catch_warnings`` is not thread-safe, so the first thread that enters suppresses them, and the last one
    that leaves restores.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._restore = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._restore.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
                self._restore.callback(cv2.utils.logging.setLogLevel, cv2.utils.logging.getLogLevel())
                cv2.utils.logging.setLogLevel(0)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._restore.close()


_SILENCE = _Silence()


def _check_size(width: int, height: int, name: str) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(f"{name}: {width}x{height} is more than {MAX_PIXELS / 1e6:.0f} megapixels and is refused")
    if width * height == 0:
        raise ImageError(f"{name}: the image has no pixels")


def _decode(data: bytes, name: str) -> Photo:
    """Decode any format but TIFF."""
    image = Image.open(io.BytesIO(data), formats=_READ_FORMATS)
    _check_size(*image.size, name)
    image.load()
    if image.format == "PNG" and data[_PNG_DEPTH_AT] == 16:
        pixels = _deep_png_pixels(image, data, name)
    else:
        pixels = _pillow_pixels(image)
    orientation, icc_profile, exif = _metadata(image)
    upright = as_rgb8(pixels, name)
    return Photo(upright if orientation == 1 else _upright(upright, orientation), icc_profile, exif)


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    image = Image.fromarray(pixels)
    image.getexif()[ExifTags.Base.Orientation] = orientation
    return np.asarray(ImageOps.exif_transpose(image))


def _pillow_pixels(image: Image.Image) -> npt.NDArray[Any]:
    has_alpha = image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info
    return np.asarray(image.convert("RGBA" if has_alpha else "RGB"))


def _metadata(image: Image.Image) -> tuple[int, bytes | None, bytes | None]:
    """Orientation, colour profile and EXIF; EXIF that cannot be read is left out."""
    icc_profile = image.info.get("icc_profile")
    if not isinstance(icc_profile, bytes) or icc_profile[_ICC_SPACE] != b"RGB ":
        icc_profile = None
    try:
        exif = image.getexif()
        orientation = exif.get(ExifTags.Base.Orientation, 1)
        for tag in _LAYOUT_TAGS.intersection(exif):
            del exif[tag]
        return orientation, icc_profile, exif.tobytes() if len(exif) else None
    except Exception:  # damaged EXIF raises many kinds of errors
        return 1, icc_profile, None


def _deep_png_pixels(image: Image.Image, data: bytes, name: str) -> npt.NDArray[Any]:
    """All 16 bits of a PNG, whose colours Pillow truncates to 8; ``image`` is Pillow's, of the same data."""
    pixels = _opencv_pixels(b"".join((data[:8], *_essential_chunks(data, name))), name)
    transparent = image.info.get("transparency")
    if transparent is not None:
        pixels[(pixels == transparent).all(axis=2)] = 65535
    return pixels


def _essential_chunks(data: bytes, name: str) -> Iterator[bytes]:
    """The chunks that hold a PNG's picture, their checksums checked, as libpng prints to stderr about damaged ones."""
    kind, at = b"", 8
    while kind != b"IEND":
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        kind, checksum = data[at + 4 : at + 8], int.from_bytes(data[end - 4 : end], "big")
        if end > len(data) or zlib.crc32(data[at + 4 : end - 4]) != checksum:
            raise ImageError(f"{name}: damaged (part of the file is missing or altered)")
        if kind in (b"IHDR", b"IDAT", b"IEND"):
            yield data[at:end]
        at = end


def _opencv_pixels(data: bytes, name: str) -> npt.NDArray[Any]:
    """Decode to ``(H, W, 1, 3 or 4)`` grey, RGB or RGBA, the samples as they are."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ImageError(f"{name}: damaged, or samples of a kind that is not supported")
    if pixels.ndim == 2:
        return pixels[..., None]
    return np.concatenate([pixels[..., 2::-1], pixels[..., 3:]], axis=2)


def _decode_tiff(data: bytes, name: str) -> Photo:
    layout = TiffLayout.read(data)
    _check_size(layout.width, layout.height, name)
    if not layout.whole:
        raise ImageError(f"{name}: damaged (part of the file is missing or altered)")
    unsupported = ImageError(f"{name}: a TIFF of a kind that is not supported ({layout})")
    if not 1 <= layout.samples <= _MOST_SAMPLES:
        raise unsupported
    try:
        image = Image.open(io.BytesIO(data), formats=("TIFF",))
    except UnidentifiedImageError:  # Pillow does not read several float samples
        image = None
    if layout.opencv_reads_it:
        pixels = _opencv_pixels(data, name)  # upright
        if {*pixels.shape[:2]} != {layout.height, layout.width} or pixels.shape[2] != layout.samples:
            raise unsupported
        pixels = layout.interpret(pixels)
    elif image is None or layout.deep:
        raise unsupported
    else:
        image.load()  # upright
        pixels = _pillow_pixels(image)
    _, icc_profile, exif = _metadata(image) if image else (1, None, None)
    return Photo(as_rgb8(pixels, name), icc_profile, exif)
