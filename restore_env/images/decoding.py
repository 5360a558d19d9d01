"""Decoding of image files to RGB arrays, with what else they hold."""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from restore_env.compute.silence import SILENCE
from restore_env.errors import ImageRestoreError, is_out_of_memory, one_line
from restore_env.images.arrays import BAND, over_white
from restore_env.images.formats import FORMATS, JPEG_END, jpeg_has_end, plugins_for
from restore_env.images.metadata import NO_METADATA, Metadata, cmyk_in_srgb, read_exif, read_metadata, upright
from restore_env.images.tiff_layout import TiffLayout

MAX_PIXELS = 178_956_970
"""An image that declares more pixels is refused before it is decoded (Pillow's own bound)."""

_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0")
_MOST_SAMPLES = 6  # per pixel that Pillow can interpret
_PNG_DEPTH_AT = 24  # the byte of a PNG file that holds its bit depth
_ICC_SPACE = slice(16, 20)  # the bytes of a colour profile that name the space it describes
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_PROFILE_SPACES = {True: b"GRAY", False: b"RGB "}
_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # per pixel, by colour type
_FEW = 2**20  # pixels that any file may declare: a GIF's frame may be smaller than its canvas
_MOST_DEFLATED = 1032  # times that Deflate makes data smaller at most

_FROM_16_BITS = ((np.arange(65536) * 255 + 32767) // 65535).astype(np.uint8)


class ImageError(ImageRestoreError):
    """An image cannot be used; the message names it and says what is wrong, in one line."""


@dataclass(frozen=True)
class Photo:
    """A decoded image and the metadata that is saved with its result."""

    pixels: npt.NDArray[np.uint8]
    """uint8 RGB, ``(H, W, 3)``, upright, transparency composited over white."""
    icc_profile: bytes | None = None
    """The colour profile, if it is one of RGB, or of grey for a grey photo."""
    exif: bytes | None = None
    """EXIF without the orientation, which has been applied."""
    grey: bool = False
    """Whether the file has one channel of colour."""
    exact: npt.NDArray[Any] | None = None
    """The colours at the file's depth and before transparency, RGB ``(H, W, 3)``: uint8, uint16, or float32 in [0, 1].
    None: they are ``pixels``."""
    alpha: npt.NDArray[Any] | None = None
    """Opacity ``(H, W)`` of the type of ``exact``; None for a photo without transparency."""
    metadata: Metadata = NO_METADATA
    """What else is saved with a result."""
    notes: tuple[str, ...] = ()
    """What a user should know about how the file was read, each in a few words."""

    @property
    def colours(self) -> npt.NDArray[Any]:
        """``exact``, or else ``pixels``."""
        return self.pixels if self.exact is None else self.exact


def photo_of(array: npt.NDArray[Any], name: str = "array") -> Photo:
    """A photo of an image array that :func:`as_rgb8` accepts.

    Raises:
        ImageError: as :func:`as_rgb8` does.
    """
    pixels = as_rgb8(array, name)
    array = np.atleast_3d(array)
    channels, colours = array.shape[2], array[..., : array.shape[2] - 1 + array.shape[2] % 2]
    grey, alpha = channels < 3, None
    if channels in (1, 3) and array.dtype in (np.uint8, np.bool_):
        return Photo(pixels, grey=grey)
    kind = np.float32 if array.dtype.kind == "f" else np.dtype(array.dtype.type)
    exact = np.ascontiguousarray(np.broadcast_to(colours, (*colours.shape[:2], 3)), dtype=kind)
    if channels in (2, 4):
        alpha = np.ascontiguousarray(array[..., -1], dtype=kind)
    return Photo(pixels, grey=grey, exact=exact, alpha=alpha)


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
        pixels = np.concatenate([over_white(pixels[top : top + BAND]) for top in range(0, len(pixels), BAND)])
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    return np.ascontiguousarray(pixels)


def read_image(path: str | os.PathLike[str], *, strict: bool = True, page: int | None = None) -> Photo:
    """Read an image file of one of :data:`restore_env.images.formats.FORMATS`.

    EXIF orientation is applied. In ``pixels`` grey, palette and CMYK become RGB; 16 bits become 8 (65535 becomes 255),
    and so do the floats in [0, 1] that a TIFF may hold; alpha is composited over white. CMYK
    becomes sRGB by its profile, if it has one.

    Args:
        path: the file.
        strict: refuse a JPEG that is cut short. Otherwise the missing part is filled as viewers do, and a note says so.
        page: the page or frame, from 1. None: the first, and a note says if there are more.

    Raises:
        ImageError: the file is missing, is no such image, is damaged, has no such page, or declares more than
            ``MAX_PIXELS`` pixels.
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
    return decode_image(data, str(path), strict=strict, page=page)


def decode_image(data: bytes, name: str = "image", *, strict: bool = True, page: int | None = None) -> Photo:
    """Decode a file's bytes as :func:`read_image` does; ``name`` is what errors call it. Safe in several threads."""
    if not data:
        raise ImageError(f"{name}: the file is empty")
    try:
        with SILENCE:
            return _decode_tiff(data, name, page) if data[:4] in _TIFF_STARTS else _decode(data, name, strict, page)
    except ImageError:
        raise
    except ImportError as error:
        raise ImageError(f"{name}: {one_line(error)}") from None
    except UnidentifiedImageError:
        kinds = ", ".join(kind.name for kind in FORMATS)
        raise ImageError(f"{name}: damaged, or not an image of a supported kind ({kinds})") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{name}: declares more than {MAX_PIXELS / 1e6:.0f} megapixels and is refused") from None
    except Exception as error:  # decoders raise whatever a broken file provokes
        if is_out_of_memory(error):
            raise ImageError(f"{name}: there is not enough memory to decode it") from None
        raise ImageError(f"{name}: damaged or not a supported image ({one_line(error)})") from None


def _check_size(width: int, height: int, name: str) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(f"{name}: {width}x{height} is more than {MAX_PIXELS / 1e6:.0f} megapixels and is refused")
    if width * height == 0:
        raise ImageError(f"{name}: the image has no pixels")


def _decode(data: bytes, name: str, strict: bool, page: int | None) -> Photo:
    """Decode any format but TIFF."""
    image, notes = _open(data, name)
    _check_size(*image.size, name)
    _check_density(image, data, name)
    _turn_to(image, page, name)
    try:
        image.load()
    except OSError as error:
        if strict or image.format not in ("JPEG", "MPO") or "truncated" not in str(error):
            raise
        image = Image.open(io.BytesIO(data + JPEG_END), formats=("JPEG",))
        image.load()
        notes = (*notes, "the file is cut short: its missing part was filled in")
    else:
        if image.format in ("JPEG", "MPO") and not jpeg_has_end(data):
            if strict:
                raise ImageError(f"{name}: damaged (the file is cut short: its end is missing)")
            notes = (*notes, "the file is cut short: its end is missing")
    if image.format == "PNG" and data[_PNG_DEPTH_AT] == 16 and page in (None, 1):
        pixels = _deep_png_pixels(image, data, name)
    elif image.format == "PPM" and image.mode == "RGB" and b"65535" in data[:64].split():
        pixels = _opencv_pixels(data, name)  # Pillow truncates to 8 bits
    else:
        pixels = _pillow_pixels(image)
    orientation, exif = read_exif(image)
    photo = photo_of(pixels if orientation == 1 else upright(pixels, orientation), name)
    return _with_metadata(photo, image, exif, (*notes, *_page_notes(image, page)))


def _open(data: bytes, name: str) -> tuple[Image.Image, tuple[str, ...]]:
    """Open a file's bytes; texts of a PNG that Pillow finds too long are left out, with a note."""
    plugins = plugins_for(data, name)
    try:
        return Image.open(io.BytesIO(data), formats=plugins), ()
    except (ValueError, UnidentifiedImageError):
        if data[1:4] != b"PNG":
            raise
        wanted = b"".join((data[:8], *_chunks(data, name, _PNG_TEXTS, without=True)))
        return Image.open(io.BytesIO(wanted), formats=("PNG",)), ("its texts are too long and were left out",)


def page_count(path: str | os.PathLike[str]) -> int:
    """The number of a file's pages or frames; 1 for a file that cannot be read."""
    try:
        data = Path(path).read_bytes()
        with SILENCE:
            tiff = data[:4] in _TIFF_STARTS
            return _pages(Image.open(io.BytesIO(data), formats=("TIFF",)) if tiff else _open(data, str(path))[0])
    except Exception:  # decoders raise whatever a broken file provokes
        return 1


def _pages(image: Image.Image) -> int:
    """An MPO's further images are other views or sizes of the first one."""
    return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)


def _turn_to(image: Image.Image, page: int | None, name: str) -> None:
    if page is None:
        return
    if not 1 <= page <= _pages(image):
        raise ImageError(f"{name}: has {_pages(image)} page(s) or frame(s), and no page {page}")
    image.seek(page - 1)


def _page_notes(image: Image.Image, page: int | None) -> tuple[str, ...]:
    return (f"the first of {_pages(image)} pages or frames",) if page is None and _pages(image) > 1 else ()


def _with_metadata(photo: Photo, image: Image.Image, exif: bytes | None, notes: tuple[str, ...] = ()) -> Photo:
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or profile[_ICC_SPACE] != _PROFILE_SPACES[photo.grey]:
        profile = None
    return replace(photo, icc_profile=profile, exif=exif, metadata=read_metadata(image), notes=notes)


def _check_density(image: Image.Image, data: bytes, name: str) -> None:
    """Refuse a file that declares more than can have been packed into its bytes."""
    densest = next((kind.densest for kind in FORMATS if image.format in kind.plugins), 1)
    if image.width * image.height > _FEW + densest * len(data):
        raise _implausible(*image.size, len(data), name)
    if image.format != "PNG":
        return
    depth, colour_type = data[_PNG_DEPTH_AT : _PNG_DEPTH_AT + 2]
    row = (image.width * depth * _PNG_SAMPLES.get(colour_type, 1) + 7) // 8
    if row * image.height > _MOST_DEFLATED * len(data):
        raise _implausible(*image.size, len(data), name)


def _implausible(width: int, height: int, length: int, name: str) -> ImageError:
    return ImageError(f"{name}: damaged: declares {width}x{height} pixels, more than a file of {length} bytes can hold")


def _pillow_pixels(image: Image.Image) -> npt.NDArray[Any]:
    """Grey or RGB, with or without alpha; 16 bits of what Pillow holds so."""
    if image.mode.startswith("I"):
        return np.asarray(image).clip(0, 65535).astype(np.uint16)
    if image.mode == "F":
        return np.asarray(image)
    has_alpha = image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info
    if image.mode == "CMYK" and image.info.get("icc_profile"):
        image = cmyk_in_srgb(image, image.info["icc_profile"])
    mode = "L" if image.mode in ("1", "L", "LA", "La") or _is_grey_palette(image) else "RGB"
    if mode == "L" and has_alpha:
        return np.asarray(image.convert("RGBA"))[..., 2:]
    return np.asarray(image.convert(mode + "A" * has_alpha))


def _is_grey_palette(image: Image.Image) -> bool:
    if image.mode not in ("P", "PA"):
        return False
    entries = np.array(image.getpalette("RGB") or [0, 1, 2]).reshape(-1, 3)
    return bool((entries == entries[:, :1]).all())


def _deep_png_pixels(image: Image.Image, data: bytes, name: str) -> npt.NDArray[Any]:
    """All 16 bits of a PNG, whose colours Pillow truncates to 8; ``image`` is Pillow's, of the same data."""
    pixels = _opencv_pixels(b"".join((data[:8], *_chunks(data, name, (b"IHDR", b"IDAT", b"IEND")))), name)
    transparent = image.info.get("transparency")
    if transparent is not None:
        pixels[(pixels == transparent).all(axis=2)] = 65535
    return pixels


def _chunks(data: bytes, name: str, kinds: tuple[bytes, ...], *, without: bool = False) -> Iterator[bytes]:
    """The chunks of a PNG of these kinds, or the others; checksums checked, as libpng prints to stderr about damage."""
    kind, at = b"", 8
    while kind != b"IEND":
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        kind, checksum = data[at + 4 : at + 8], int.from_bytes(data[end - 4 : end], "big")
        if end > len(data) or zlib.crc32(data[at + 4 : end - 4]) != checksum:
            raise ImageError(f"{name}: damaged (part of the file is missing or altered)")
        if (kind in kinds) != without:
            yield data[at:end]
        at = end


def _opencv_pixels(data: bytes, name: str, page: int = 1) -> npt.NDArray[Any]:
    """Decode to ``(H, W, 1, 3 or 4)`` grey, RGB or RGBA, the samples as they are."""
    encoded = np.frombuffer(data, np.uint8)
    if page == 1:
        pixels = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
    else:
        pixels = next(iter(cv2.imdecodemulti(encoded, cv2.IMREAD_UNCHANGED, range=(page - 1, page))[1]), None)
    if pixels is None:
        raise ImageError(f"{name}: damaged, or samples of a kind that is not supported")
    if pixels.ndim == 2:
        return pixels[..., None]
    return np.concatenate([pixels[..., 2::-1], pixels[..., 3:]], axis=2)


def _decode_tiff(data: bytes, name: str, page: int | None) -> Photo:
    layout = TiffLayout.read(data, page or 1)
    if layout is None:
        raise ImageError(f"{name}: has no page {page}")
    _check_size(layout.width, layout.height, name)
    if not layout.plausible:
        raise _implausible(layout.width, layout.height, len(data), name)
    if not layout.whole:
        raise ImageError(f"{name}: damaged (part of the file is missing or altered)")
    unsupported = ImageError(f"{name}: a TIFF of a kind that is not supported ({layout})")
    if not 1 <= layout.samples <= _MOST_SAMPLES:
        raise unsupported
    try:
        image = Image.open(io.BytesIO(data), formats=("TIFF",))
    except UnidentifiedImageError:  # Pillow does not read several float samples
        image = None
    if image is not None:
        _turn_to(image, page, name)
    if layout.opencv_reads_it:
        pixels = _opencv_pixels(data, name, page or 1)  # upright
        if {*pixels.shape[:2]} != {layout.height, layout.width} or pixels.shape[2] != layout.samples:
            raise unsupported
        pixels = layout.interpret(pixels)
    elif image is None or layout.deep:
        raise unsupported
    else:
        image.load()  # upright
        pixels = _pillow_pixels(image)
    photo = photo_of(pixels, name)
    return photo if image is None else _with_metadata(photo, image, read_exif(image)[1], _page_notes(image, page))
