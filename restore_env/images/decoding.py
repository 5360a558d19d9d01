"""Reading image files: whatever the file holds, a uint8 RGB array comes out, or one clear error."""

from __future__ import annotations

import contextlib
import io
import os
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from restore_env.errors import ImageRestoreError
from restore_env.images.arrays import Pixels

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")
"""File names that a folder is searched for, lower case."""
MAX_PIXELS = 178_956_970
"""An image that declares more pixels is refused before it is decoded (Pillow's own bound)."""

_READ_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")

_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0")
_MOST_SAMPLES = 6  # per pixel that Pillow knows what to do with
_PNG_DEPTH_AT = 24  # the byte of a PNG file that holds its bit depth
_ICC_SPACE = slice(16, 20)  # the bytes of a colour profile that name the space it describes
_STORAGE = ((254, 266), (273, 274), (277, 281), (284, 284), (288, 293), (297, 297), (317, 317), (320, 347), (512, 532))
_LAYOUT_TAGS = frozenset((700, 34377, 34675, *(tag for first, last in _STORAGE for tag in range(first, last + 1))))
"""EXIF tags that tell how the pixels were stored, orientation among them: not true of what is written later."""

_FROM_16_BITS = ((np.arange(65536) * 255 + 32767) // 65535).astype(np.uint8)


class ImageError(ImageRestoreError):
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
    """Keeps decoders from warning and logging about damaged files: the error that is raised says it.

    ``warnings.catch_warnings`` restores what it found, so in overlapping threads one's filter could outlive them all.
    Here the first thread that enters silences, and the last one that leaves restores.
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
    upright = _UPRIGHT.get(orientation, np.asarray)(as_rgb8(pixels, name))
    return Photo(np.ascontiguousarray(upright), icc_profile, exif)


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


def _pillow_pixels(image: Image.Image) -> npt.NDArray[Any]:
    has_alpha = image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info
    return np.asarray(image.convert("RGBA" if has_alpha else "RGB"))


def _metadata(image: Image.Image) -> tuple[int, bytes | None, bytes | None]:
    """Orientation, colour profile and EXIF. EXIF that cannot be read is left out: the picture is none the worse."""
    icc_profile = image.info.get("icc_profile")
    if not isinstance(icc_profile, bytes) or icc_profile[_ICC_SPACE] != b"RGB ":
        icc_profile = None
    try:
        exif = image.getexif()
        orientation = exif.get(ExifTags.Base.Orientation, 1)
        for tag in _LAYOUT_TAGS.intersection(exif):
            del exif[tag]
        return (orientation if orientation in _UPRIGHT else 1), icc_profile, exif.tobytes() if len(exif) else None
    except Exception:  # as varied as the ways to break it
        return 1, icc_profile, None


def _deep_png_pixels(image: Image.Image, data: bytes, name: str) -> npt.NDArray[Any]:
    """All 16 bits of a PNG, of which Pillow would cut colours to 8; it has decoded ``image`` from the same data."""
    pixels = _opencv_pixels(b"".join((data[:8], *_essential_chunks(data, name))), name)
    transparent = image.info.get("transparency")
    if transparent is not None:
        pixels[(pixels == transparent).all(axis=2)] = 65535
    return pixels


def _essential_chunks(data: bytes, name: str) -> Iterator[bytes]:
    """The chunks that make a PNG's picture, checked: about anything wrong or odd libpng prints to stderr."""
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
    layout = _TiffLayout.read(data)
    _check_size(layout.width, layout.height, name)
    if not layout.whole:
        raise ImageError(f"{name}: damaged (part of the file is missing or altered)")
    unsupported = ImageError(f"{name}: a TIFF of a kind that is not supported ({layout})")
    if not 1 <= layout.samples <= _MOST_SAMPLES:
        raise unsupported
    try:
        image = Image.open(io.BytesIO(data), formats=("TIFF",))
    except UnidentifiedImageError:  # Pillow knows no image of several float samples
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


@dataclass(frozen=True)
class _TiffLayout:
    """What a TIFF's first image says of its samples."""

    width: int
    height: int
    bits: frozenset[int]
    formats: frozenset[int]
    photometric: int
    compression: int
    samples: int
    extra: int
    """The kind of the fourth sample."""
    planar: bool
    whole: bool
    """Whether all of the image's bytes are there, and sound as far as checksums tell: OpenCV does not tell."""

    UNSIGNED, FLOAT = 1, 3
    WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, YCBCR = 0, 1, 2, 6
    FAX, LZW, JPEG, DEFLATE, PACKBITS = (2, 3, 4), 5, 7, (8, 32946), 32773
    ASSOCIATED, UNASSOCIATED = 1, 2

    @classmethod
    def read(cls, data: bytes) -> _TiffLayout:
        tags = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if data[2:3] == b"+" else 8])
        file = io.BytesIO(data)
        file.seek(tags.next)
        tags.load(file)
        width, height, samples = tags.get(256, 0), tags.get(257, 0), tags.get(277, 1)
        offsets, counts = tags.get(273, tags.get(324, ())), tags.get(279, tags.get(325, ()))
        parts = [(offset, offset + count) for offset, count in zip(offsets, counts, strict=False)]
        whole = all(stop <= len(data) for _, stop in parts)
        compression = tags.get(259, 1)
        if compression in cls.DEFLATE:
            whole = whole and all(_inflates(data[start:stop], width * height * samples) for start, stop in parts)
        return cls(
            width=width,
            height=height,
            bits=frozenset(tags.get(258, (1,))),
            formats=frozenset(tags.get(339, (cls.UNSIGNED,))),
            photometric=tags.get(262, cls.BLACK_IS_ZERO),
            compression=compression,
            samples=samples,
            extra=tags.get(338, (0,))[0],
            planar=samples > 1 and tags.get(284, 1) == 2,
            whole=whole,
        )

    def __str__(self) -> str:
        return (
            f"{'/'.join(map(str, sorted(self.bits)))} bits of format {'/'.join(map(str, sorted(self.formats)))},"
            f" {self.samples} sample(s){' in planes' * self.planar}, photometric {self.photometric},"
            f" compression {self.compression}"
        )

    @property
    def deep(self) -> bool:
        """Whether samples have more than 8 bits, which Pillow would cut or cannot convert."""
        return max(self.bits) > 8 or self.FLOAT in self.formats

    @property
    def opencv_reads_it(self) -> bool:
        """Whether OpenCV reads it right: 16-bit or float grey and RGB(A), and the usual compressed images.

        Pillow reads the latter as well, but its libtiff prints to stderr if they are damaged.
        """
        if self.planar or len(self.bits) != 1 or len(self.formats) != 1:
            return False
        (bits,), (sample_format,) = self.bits, self.formats
        grey = self.samples == 1 and self.photometric in (self.WHITE_IS_ZERO, self.BLACK_IS_ZERO)
        if self.deep:
            of_known_kind = (bits, sample_format) in ((16, self.UNSIGNED), (32, self.FLOAT), (64, self.FLOAT))
            return of_known_kind and (grey or (self.samples in (3, 4) and self.photometric == self.RGB))
        colour = self.samples == 3 and self.photometric in (self.RGB, self.YCBCR)
        kinds = {1: self.FAX, 8: (self.LZW, self.JPEG, *self.DEFLATE, self.PACKBITS)}
        return sample_format == self.UNSIGNED and (grey or colour) and self.compression in kinds.get(bits, ())

    def interpret(self, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Turn OpenCV's pixels, deep ones as they are in the file, into grey, RGB or RGBA of straight alpha."""
        if not self.deep:
            return pixels
        white = pixels.dtype.type(1) if self.FLOAT in self.formats else np.iinfo(pixels.dtype).max
        if self.photometric == self.WHITE_IS_ZERO:
            return white - pixels
        if pixels.shape[2] == 4 and self.extra != self.UNASSOCIATED:
            colour, alpha = pixels[..., :3], pixels[..., 3:]
            return np.minimum(colour, alpha) + (white - alpha) if self.extra == self.ASSOCIATED else colour
        return pixels


def _inflates(strip: bytes, samples: int) -> bool:
    """Whether a part of a TIFF is a zlib stream to its end; no more is unpacked than an image has."""
    stream = zlib.decompressobj()
    stream.decompress(strip, 8 * samples + 2**20)
    return stream.eof
