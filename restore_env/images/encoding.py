"""Writing image files with their colour profile and EXIF."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from PIL import Image

from restore_env.images.decoding import ImageError, Photo, one_line
from restore_env.images.files import write_atomically

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
_LONGEST_SIDE: Mapping[str, int] = MappingProxyType({"JPEG": 65500, "WEBP": 16383})
WRITABLE = tuple(_WRITE_FORMATS)
"""Suffixes that :func:`write_image` can write."""


def check_writable(path: str | os.PathLike[str]) -> Path:
    """Return ``path`` as a :class:`~pathlib.Path` if its suffix is one of :data:`WRITABLE`, else raise ImageError."""
    path = Path(path)
    if path.suffix.lower() not in _WRITE_FORMATS:
        raise ImageError(f"{path}: cannot write {path.suffix or 'a file without a suffix'}; use {', '.join(WRITABLE)}")
    return path


def write_image(path: str | os.PathLike[str], photo: Photo) -> None:
    """Write PNG, JPEG (quality 95, 4:4:4), lossless WebP or TIFF, by the suffix, with profile and EXIF.

    The file is written atomically.

    Raises:
        ImageError: an unknown suffix, a size that the format cannot hold, or a path that cannot be written to.
    """
    path = check_writable(path)
    file_format, options = _WRITE_FORMATS[path.suffix.lower()]
    kept = {key: value for key, value in (("icc_profile", photo.icc_profile), ("exif", photo.exif)) if value}
    if file_format == "TIFF" and photo.exif:
        options = {}  # Pillow's compressed TIFF cannot hold the directories inside EXIF
    height, width = photo.pixels.shape[:2]
    longest = _LONGEST_SIDE.get(file_format)
    if longest is not None and max(height, width) > longest:
        raise ImageError(f"{path}: {width}x{height} is too large for {file_format} (at most {longest} pixels a side)")
    buffer = io.BytesIO()
    try:
        Image.fromarray(photo.pixels).save(buffer, file_format, **options, **kept)
    except Exception as error:  # such as a tag that the format cannot hold: each encoder raises something else
        raise ImageError(f"{path}: cannot be written as {file_format} ({one_line(error)})") from None
    try:
        write_atomically(path, buffer.getvalue())
    except OSError as error:
        raise ImageError(f"{path}: cannot be written ({error.strerror or error})") from None
