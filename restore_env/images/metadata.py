"""Metadata of image files: read from one format, written to another."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
from PIL import ExifTags, Image, ImageCms, PngImagePlugin, TiffImagePlugin

_STORAGE = ((254, 266), (273, 274), (277, 281), (284, 284), (288, 293), (297, 297), (317, 317), (320, 347), (512, 532))
_ELSEWHERE = (700, 33723, 34377, 34675)  # XMP, IPTC, Photoshop's, profile
_LAYOUT_TAGS = frozenset((*_ELSEWHERE, 330, 338, 339, *(tag for a, b in _STORAGE for tag in range(a, b + 1))))
"""EXIF tags about how the pixels were stored, orientation among them, which do not apply to a file written later."""
_SUB_DIRECTORIES = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
_EXIF_WIDTH, _EXIF_HEIGHT, _INTEROP = 40962, 40963, 40965
_IPTC_IN_TIFF, _XMP_IN_TIFF, _IPTC_IN_PHOTOSHOP = 33723, 700, 0x0404
_XMP_KEY, _COMMENT = "XML:com.adobe.xmp", "Comment"
_DPI_TAGS = (282, 283, 296)


@dataclass(frozen=True)
class Metadata:
    """Metadata of an image file, apart from EXIF and the colour profile."""

    xmp: bytes | None = None
    iptc: bytes | None = None
    """IPTC-IIM records."""
    dpi: tuple[float, float] | None = None
    text: tuple[tuple[str, str], ...] = ()
    """Keywords and texts of a PNG; the comment of a JPEG or GIF is ``("Comment", text)``."""


NO_METADATA = Metadata()


def read_metadata(image: Image.Image) -> Metadata:
    """Read what Pillow's image has; what is damaged is left out."""
    info = image.info
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    xmp = info.get("xmp") or info.get(_XMP_KEY)
    xmp = xmp.encode() if isinstance(xmp, str) else xmp
    photoshop = info.get("photoshop")
    iptc = photoshop.get(_IPTC_IN_PHOTOSHOP) if isinstance(photoshop, dict) else tags.get(_IPTC_IN_TIFF)
    if isinstance(iptc, tuple):  # as whole numbers of 4 bytes
        iptc = struct.pack(f"<{len(iptc)}L", *iptc) if all(isinstance(part, int) for part in iptc) else None
    comment = info.get("comment")
    texts = {str(key): str(value) for key, value in getattr(image, "text", {}).items() if key != _XMP_KEY}
    if isinstance(comment, (bytes, str)) and comment:
        texts[_COMMENT] = comment if isinstance(comment, str) else comment.decode("utf-8", "replace")
    return Metadata(
        re.sub(rb'(tiff:Orientation(?:="|>))\d', rb"\g<1>1", xmp) if isinstance(xmp, bytes) and xmp else None,
        iptc if isinstance(iptc, bytes) and iptc else None,
        None if tags and 282 not in tags else _dpi(info.get("dpi")),  # Pillow's is 1 for a TIFF that has none
        tuple(texts.items()),
    )


def _dpi(value: Any) -> tuple[float, float] | None:
    try:
        across, down = (float(part) for part in value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if 0 < across < 1e6 and 0 < down < 1e6 else None


def read_exif(image: Image.Image) -> tuple[int, bytes | None]:
    """Orientation, and EXIF without it and without what is about storage; EXIF that cannot be read is left out."""
    try:
        exif = image.getexif()
        orientation = exif.get(ExifTags.Base.Orientation, 1)
        kept = Image.Exif()  # a new one: a BigTIFF's would be written as BigTIFF
        for tag in set(exif) - _LAYOUT_TAGS - set(_SUB_DIRECTORIES):
            kept[tag] = exif[tag]
        for directory in _SUB_DIRECTORIES:
            values = {tag: value for tag, value in exif.get_ifd(directory).items() if not isinstance(value, dict)}
            if isinstance(values.get(_INTEROP), int):
                values[_INTEROP] = exif.get_ifd(_INTEROP)
            if values:
                kept[directory] = values
        return orientation, kept.tobytes() if set(kept) - set(_DPI_TAGS) else None
    except Exception:  # damaged EXIF raises many kinds of errors
        return 1, None


def upright(array: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Turn an image ``(H, W, ...)`` by its EXIF orientation."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return array[:, ::-1] if orientation in (2, 3, 6, 7) else array


def cmyk_in_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """A CMYK image in sRGB; as it is if its profile cannot be used."""
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(image, given, ImageCms.createProfile("sRGB"), outputMode="RGB") or image
    except (ImageCms.PyCMSError, OSError):
        return image


def resized_exif(exif: bytes | None, width: int, height: int) -> bytes | None:
    """EXIF whose pixel dimensions, if it has them, are these."""
    if not exif:
        return None
    loaded = Image.Exif()
    try:
        loaded.load(exif)
        directory = loaded.get_ifd(ExifTags.IFD.Exif)
        if not directory.keys() & {_EXIF_WIDTH, _EXIF_HEIGHT}:
            return exif
        if isinstance(directory.get(_INTEROP), int):
            directory[_INTEROP] = loaded.get_ifd(_INTEROP)
        directory[_EXIF_WIDTH], directory[_EXIF_HEIGHT] = width, height
        loaded[ExifTags.IFD.Exif] = directory
        return loaded.tobytes()
    except Exception:  # damaged EXIF raises many kinds of errors
        return exif


def resized_xmp(xmp: bytes | None, width: int, height: int) -> bytes | None:
    """XMP whose pixel dimensions, if it has them, are these."""
    if not xmp:
        return None
    for names, value in (
        (b"exif:PixelXDimension|tiff:ImageWidth", width),
        (b"exif:PixelYDimension|tiff:ImageLength", height),
    ):
        xmp = re.sub(rb'((?:%s)(?:="|>))\d+' % names, rb"\g<1>%d" % value, xmp)
    return xmp


def for_png(metadata: Metadata) -> dict[str, Any]:
    """Pillow's options for a PNG with this metadata."""
    info = PngImagePlugin.PngInfo()
    for key, value in metadata.text:
        info.add_itxt(key, value) if any(ord(char) > 255 for char in value) else info.add_text(key, value)
    if metadata.xmp:
        info.add_itxt(_XMP_KEY, metadata.xmp.decode("utf-8", "replace"))
    return {"pnginfo": info} | ({"dpi": metadata.dpi} if metadata.dpi else {})


def for_jpeg(metadata: Metadata) -> dict[str, Any]:
    """Pillow's options for a JPEG with this metadata."""
    options: dict[str, Any] = {"dpi": metadata.dpi} if metadata.dpi else {}
    extra = b""
    if metadata.xmp and len(metadata.xmp) < 65_000:
        extra += _segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + metadata.xmp)
    if metadata.iptc and len(metadata.iptc) < 65_000:
        padded = metadata.iptc + b"\0" * (len(metadata.iptc) % 2)
        size = struct.pack(">L", len(metadata.iptc))
        extra += _segment(0xED, b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + size + padded)
    comment = dict(metadata.text).get(_COMMENT)
    return options | ({"extra": extra} if extra else {}) | ({"comment": comment.encode()[:65_000]} if comment else {})


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def tiff_directory(
    exif: bytes | None, profile: bytes | None, metadata: Metadata
) -> TiffImagePlugin.ImageFileDirectory_v2:
    """A TIFF's tags of metadata."""
    tags = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    loaded = Image.Exif()
    if exif:
        loaded.load(exif)
    for tag in loaded:
        if tag in _SUB_DIRECTORIES:
            directory = dict(loaded.get_ifd(tag))
            if isinstance(directory.get(_INTEROP), int):
                directory[_INTEROP] = loaded.get_ifd(_INTEROP)
            tags[tag] = directory
        else:
            tags[tag] = loaded[tag]
    if metadata.dpi:
        tags[282], tags[283], tags[296] = *metadata.dpi, 2
    for tag, kind, value in ((_XMP_IN_TIFF, 1, metadata.xmp), (_IPTC_IN_TIFF, 7, metadata.iptc), (34675, 7, profile)):
        if value:
            tags.tagtype[tag] = kind
            tags[tag] = value
    return tags
