"""Writing image files with their depth, transparency, colour profile and metadata."""

from __future__ import annotations

import io
import os
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from restore_env.errors import is_out_of_memory, one_line
from restore_env.images.decoding import ImageError, Photo
from restore_env.images.files import write_atomically
from restore_env.images.formats import WRITTEN, Format
from restore_env.images.metadata import NO_METADATA, for_jpeg, for_png, resized_exif, resized_xmp, tiff_directory
from restore_env.images.profiles import in_srgb

WRITABLE = tuple(WRITTEN)
"""Suffixes that :func:`write_image` can write."""

_STRIP = 2**20  # bytes of samples that a TIFF compresses together
_PNG_HEAD = 33  # bytes of a PNG's signature with its header


def check_writable(path: str | os.PathLike[str]) -> Path:
    """Return ``path`` as a :class:`~pathlib.Path` if its suffix is one of :data:`WRITABLE`, else raise ImageError."""
    path = Path(path)
    if path.suffix.lower() not in WRITTEN:
        raise ImageError(f"{path}: cannot write {path.suffix or 'a file without a suffix'}; use {', '.join(WRITABLE)}")
    return path


def write_image(
    path: str | os.PathLike[str],
    photo: Photo,
    *,
    quality: int | None = None,
    strip: bool = False,
    replace_existing: bool = True,
    accept_same: bool = False,
) -> tuple[str, ...]:
    """Write PNG, JPEG, WebP or TIFF, by the suffix, with all that the format can hold of a photo.

    The file is written atomically.

    Args:
        path: the file.
        photo: what is written.
        quality: 1 to 100, for JPEG and WebP; None: 95 with 4:4:4 for JPEG, lossless for WebP.
        strip: leave out metadata and colour profile; the colours become sRGB where their space is known.
        replace_existing: whether a file of that name is replaced; else it is an error.
        accept_same: whether a file of that name with the very same bytes is no error.

    Returns:
        What the format could not hold and a viewer would see, each in a few words.

    Raises:
        ImageError: an unknown suffix, a size that the format cannot hold, or a path that cannot be written to.
    """
    path = check_writable(path)
    data, lost = encode_image(photo, path.suffix, str(path), quality=quality, strip=strip)
    try:
        write_atomically(path, data, replace=replace_existing)
    except FileExistsError:
        if not (accept_same and path.is_file() and path.read_bytes() == data):
            raise ImageError(f"{path}: exists; --force overwrites it") from None
    except OSError as error:
        raise ImageError(f"{path}: cannot be written ({error.strerror or error})") from None
    return lost


def encode_image(
    photo: Photo, suffix: str, name: str, *, quality: int | None = None, strip: bool = False
) -> tuple[bytes, tuple[str, ...]]:
    """Encode a photo as :func:`write_image` does; ``name`` is what errors call it.

    Returns:
        The file's bytes, and what the format could not hold.
    """
    kind = WRITTEN[suffix.lower()]
    height, width = photo.pixels.shape[:2]
    if kind.longest is not None and max(height, width) > kind.longest:
        file_format = kind.plugins[0]
        raise ImageError(
            f"{name}: {width}x{height} is too large for {file_format} (at most {kind.longest} pixels a side)"
        )
    if strip:
        photo = replace(in_srgb(photo), icc_profile=None, exif=None, metadata=NO_METADATA)
    elif photo.grey and not kind.grey:  # which its profile would be for
        photo = replace(in_srgb(photo), icc_profile=None)
    photo = replace(
        photo,
        exif=resized_exif(photo.exif, width, height),
        metadata=replace(photo.metadata, xmp=resized_xmp(photo.metadata.xmp, width, height)),
    )
    samples = _samples(photo, kind)
    try:
        data = _encode_tiff(samples, photo) if kind.name == "TIFF" else _encode(samples, photo, kind, quality)
    except Exception as error:  # such as a tag that the format cannot hold: each encoder raises something else
        if is_out_of_memory(error):
            raise ImageError(f"{name}: there is not enough memory to encode it") from None
        raise ImageError(f"{name}: cannot be written as {kind.plugins[0]} ({one_line(error)})") from None
    return data, _lost(photo, kind)


def _lost(photo: Photo, kind: Format) -> tuple[str, ...]:
    lost = []
    if photo.alpha is not None and not kind.alpha and _fitted(photo.alpha, kind).min() < 255:
        lost.append(f"{kind.name} holds no transparency: white shows through")
    if photo.exact is not None and photo.exact.dtype != np.uint8 and not kind.deep:
        lost.append(f"{kind.name} holds 8 bits: the input has more")
    return tuple(lost)


def _samples(photo: Photo, kind: Format) -> npt.NDArray[Any]:
    """What the format stores: ``(H, W, 1 to 4)``; uint8, or of more bits if the format and the photo have them."""
    alpha = photo.alpha if kind.alpha else None
    exact = photo.exact if photo.exact is not None and (kind.deep or alpha is not None) else photo.pixels
    colours = _fitted(exact, kind)
    one_channel = photo.grey and kind.grey and (alpha is None or colours.dtype == np.uint8)
    colours = colours[..., :1] if one_channel else colours
    return colours if alpha is None else np.concatenate([colours, _fitted(alpha, kind)[..., None]], axis=2)


def _fitted(samples: npt.NDArray[Any], kind: Format) -> npt.NDArray[Any]:
    """Samples of no more bits than the format holds."""
    white = 1.0 if samples.dtype.kind == "f" else float(np.iinfo(samples.dtype).max)
    if not kind.deep and samples.dtype != np.uint8:
        return np.asarray(np.rint(samples * (255 / white)), dtype=np.uint8)
    if kind.name == "PNG" and samples.dtype.kind == "f":
        return np.asarray(np.rint(samples * 65535), dtype=np.uint16)
    return samples


def _encode(samples: npt.NDArray[Any], photo: Photo, kind: Format, quality: int | None) -> bytes:
    file_format = kind.plugins[0]
    options: dict[str, Any] = dict(kind.options)
    if quality is not None and kind.lossy:
        options = {"quality": quality} | ({"exact": True} if kind.alpha else {"subsampling": 0})
    for key, value in (("icc_profile", photo.icc_profile), ("exif", photo.exif)):
        options |= {key: value} if value else {}
    if kind.name == "PNG":
        options |= for_png(photo.metadata)
        if samples.dtype != np.uint8:
            return _deep_png(samples, options)
    elif kind.name == "JPEG":
        options |= for_jpeg(photo.metadata)
    elif photo.metadata.xmp:
        options["xmp"] = photo.metadata.xmp
    buffer = io.BytesIO()
    Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples).save(buffer, file_format, **options)
    return buffer.getvalue()


def _deep_png(samples: npt.NDArray[Any], options: dict[str, Any]) -> bytes:
    """A PNG of 16 bits, which Pillow does not write: OpenCV's, with the metadata of one of Pillow's."""
    ordered = np.concatenate([samples[..., 2::-1], samples[..., 3:]], axis=2) if samples.shape[2] > 1 else samples
    done, encoded = cv2.imencode(".png", ordered)
    if not done:
        raise ValueError("the encoder failed")
    data, buffer = encoded.tobytes(), io.BytesIO()
    Image.new("RGB" if samples.shape[2] > 1 else "L", (1, 1)).save(buffer, "PNG", **options)
    kept, at = b"", _PNG_HEAD
    pattern = buffer.getvalue()
    while at < len(pattern):
        end = at + 12 + int.from_bytes(pattern[at : at + 4], "big")
        if pattern[at + 4 : at + 8] not in (b"IDAT", b"IEND"):
            kept += pattern[at:end]
        at = end
    return data[:_PNG_HEAD] + kept + data[_PNG_HEAD:]


def _encode_tiff(samples: npt.NDArray[Any], photo: Photo) -> bytes:
    """A TIFF of any depth, compressed without loss: Pillow writes none with EXIF, nor with colours of 16 bits."""
    height, width, channels = samples.shape
    floats = samples.dtype.kind == "f"
    samples = samples.astype(samples.dtype.newbyteorder("<"), copy=False)
    rows = max(1, _STRIP // (width * channels * samples.itemsize))
    strips = []
    for top in range(0, height, rows):
        strip = samples[top : top + rows]
        if not floats:
            differences = strip.copy()
            differences[:, 1:] -= strip[:, :-1]
            strip = differences
        strips.append(zlib.compress(strip.tobytes(), 6))
    tags = tiff_directory(photo.exif, photo.icc_profile, photo.metadata)
    lengths = [len(strip) for strip in strips]
    layout: dict[int, Any] = {
        256: width,
        257: height,
        258: (8 * samples.itemsize,) * channels,
        259: 8,
        262: 2 if channels > 2 else 1,
        277: channels,
        278: rows,
        279: tuple(lengths),
        284: 1,
        339: (3 if floats else 1,) * channels,
        **({} if floats else {317: 2}),
        **({338: (2,)} if channels in (2, 4) else {}),
        273: tuple(sum(lengths[:index]) for index in range(len(lengths))),
    }
    for tag, value in layout.items():
        tags[tag] = value
    tags.tagtype[273] = tags.tagtype[279] = 4  # four bytes each
    return b"".join((b"II*\0\x08\0\0\0", tags.tobytes(8), *strips))
