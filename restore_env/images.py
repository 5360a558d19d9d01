"""Reading and writing image files: whatever the file holds, a uint8 RGB array comes out, or one clear error."""

from __future__ import annotations

import io
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

Pixels = npt.NDArray[np.uint8]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")
"""File names that a folder is searched for, lower case."""
MAX_PIXELS = 178_956_970
"""An image that declares more pixels is refused before it is decoded (Pillow's own bound)."""

_READ_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP", "GIF")
_WRITE_FORMATS: Mapping[str, tuple[str, Mapping[str, Any]]] = MappingProxyType(
    {
        ".png": ("PNG", {}),
        ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
        ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
        ".webp": ("WEBP", {"lossless": True}),
        ".tif": ("TIFF", {"compression": "tiff_adobe_deflate"}),
        ".tiff": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    }
)
WRITABLE = tuple(_WRITE_FORMATS)
"""Suffixes that :func:`write_image` can write."""

_TIFF_BITS, _TIFF_FORMAT, _TIFF_FLOAT = 258, 339, 3
_PNG_DEPTH_AT = 24  # the byte of a PNG file that holds its bit depth


class ImageError(ValueError):
    """An image that cannot be used; the message names it and says what is wrong, in one line."""


@dataclass(frozen=True)
class Photo:
    """A decoded file and what is to be kept of it when the result is saved."""

    pixels: npt.NDArray[np.uint8]
    """uint8 RGB, ``(H, W, 3)``, upright."""
    icc_profile: bytes | None = None
    """The colour profile, where it still describes the pixels."""
    exif: bytes | None = None
    """EXIF without its orientation, which has been applied."""


def as_rgb8(array: npt.NDArray[Any], name: str = "array") -> npt.NDArray[np.uint8]:
    """Turn an image array into uint8 RGB ``(H, W, 3)``.

    Accepted: ``(H, W)`` and ``(H, W, 1)`` grey, ``(H, W, 2)`` grey with alpha, ``(H, W, 3)`` RGB, ``(H, W, 4)`` RGBA;
    uint8, uint16 (65535 becomes 255), bool, or float in [0, 1]. Alpha is composited over white.

    Raises:
        ImageError: another shape or type, no pixels, or floats that are not finite or lie outside [0, 1].
    """
    array = np.asarray(array)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4) or array.size == 0:
        raise ImageError(f"{name}: shape {array.shape} is no image; expected (H, W) or (H, W, 1 to 4)")
    if array.dtype == np.uint8:
        pixels: npt.NDArray[Any] = array
    elif array.dtype == np.uint16:
        pixels = ((array.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
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

    EXIF orientation is applied; grey, palette and CMYK become RGB; 16 bits become 8 (65535 becomes 255); alpha is
    composited over white; of an animation the first frame is taken.

    Raises:
        ImageError: the file is missing, is no such image, is damaged, or declares more than ``MAX_PIXELS`` pixels.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror or error})") from None
    return decode_image(data, str(path))


def decode_image(data: bytes, name: str = "image") -> Photo:
    """Decode a file's bytes as :func:`read_image` does; ``name`` is what errors call it."""
    if not data:
        raise ImageError(f"{name}: the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                image = Image.open(io.BytesIO(data), formats=_READ_FORMATS)
            except Image.UnidentifiedImageError:
                return Photo(as_rgb8(_decode_unknown(data, name), name))
            _check_size(*image.size, name)
            return _decode_pillow(image, data, name)
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise ImageError(f"{name}: declares more than {MAX_PIXELS / 1e6:.0f} megapixels and is refused") from None
    except Exception as error:  # decoders raise whatever a broken file provokes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{name}: damaged or not a supported image ({reason})") from None


def _check_size(width: int, height: int, name: str) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{name}: {width}x{height} is more than {MAX_PIXELS / 1e6:.0f} megapixels and is refused (decompression bomb?)"
        )
    if width * height == 0:
        raise ImageError(f"{name}: the image has no pixels")


def _is_deep(image: Image.Image, data: bytes) -> bool:
    """Whether samples have more than 8 bits, which Pillow would cut or cannot convert."""
    if image.mode.startswith(("I", "F")):
        return True
    if image.format == "PNG":
        return data[_PNG_DEPTH_AT] == 16
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        return max(tags.get(_TIFF_BITS, (8,))) > 8 or _TIFF_FLOAT in tags.get(_TIFF_FORMAT, ())
    return False


def _decode_pillow(image: Image.Image, data: bytes, name: str) -> Photo:
    deep = _is_deep(image, data)
    describes_rgb = image.mode in ("RGB", "RGBA", "P", "PA")
    icc_profile = image.info.get("icc_profile") if describes_rgb else None
    exif = image.getexif()
    orientation = exif.pop(ExifTags.Base.Orientation, 1)
    if deep:
        pixels = _decode_deep(data, name)
    else:
        has_alpha = image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info
        pixels = np.asarray(image.convert("RGBA" if has_alpha else "RGB"))
    upright = _UPRIGHT.get(orientation, np.asarray)(as_rgb8(pixels, name))
    return Photo(np.ascontiguousarray(upright), icc_profile, exif.tobytes() if len(exif) else None)


_UPRIGHT: Mapping[int, Callable[[Pixels], Pixels]] = MappingProxyType(
    {
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.transpose(1, 0, 2),
        6: lambda p: np.rot90(p, -1),
        7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
        8: lambda p: np.rot90(p),
    }
)
"""What turns an image of each EXIF orientation upright."""


def _decode_deep(data: bytes, name: str) -> npt.NDArray[Any]:
    """Decode a PNG or TIFF of 16-bit or float samples to RGB(A) or grey, its samples as they are."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(0)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    finally:
        cv2.utils.logging.setLogLevel(level)
    if pixels is None:
        raise ImageError(f"{name}: damaged, or samples of a kind that is not supported")
    if pixels.ndim == 3 and pixels.shape[2] >= 3:
        pixels = np.concatenate([pixels[..., 2::-1], pixels[..., 3:]], axis=2)
    return np.asarray(pixels)


def _decode_unknown(data: bytes, name: str) -> npt.NDArray[Any]:
    """Decode what Pillow does not know: TIFF with several float samples per pixel."""
    if data[:4] not in (b"II*\0", b"MM\0*"):
        raise ImageError(f"{name}: not an image of a supported kind ({', '.join(s[1:] for s in SUFFIXES)})")
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        page = tiff.pages[0]
        height, width = page.shape[:2]
    _check_size(width, height, name)
    return _decode_deep(data, name)


def check_writable(path: str | os.PathLike[str]) -> Path:
    """Return ``path`` as a :class:`~pathlib.Path` if :func:`write_image` knows its suffix, else raise ImageError."""
    path = Path(path)
    if path.suffix.lower() not in _WRITE_FORMATS:
        raise ImageError(f"{path}: cannot write {path.suffix or 'a file without a suffix'}; use {', '.join(WRITABLE)}")
    return path


def write_image(path: str | os.PathLike[str], photo: Photo) -> None:
    """Write PNG, JPEG (quality 95, 4:4:4), lossless WebP or TIFF, by the suffix, with profile and EXIF.

    The file appears whole or not at all.

    Raises:
        ImageError: an unknown suffix, or a place that cannot be written to.
    """
    path = check_writable(path)
    file_format, options = _WRITE_FORMATS[path.suffix.lower()]
    kept = {key: value for key, value in (("icc_profile", photo.icc_profile), ("exif", photo.exif)) if value}
    buffer = io.BytesIO()
    try:
        Image.fromarray(photo.pixels).save(buffer, file_format, **options, **kept)
        write_atomically(path, buffer.getvalue())
    except OSError as error:
        raise ImageError(f"{path}: cannot be written ({error.strerror or error})") from None
    except ValueError as error:  # a size or a tag that the format cannot hold
        raise ImageError(f"{path}: cannot be written as {file_format} ({error})") from None


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file under a temporary name beside ``path``, then rename: readers see the old file or the whole new one."""
    path = Path(path)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
