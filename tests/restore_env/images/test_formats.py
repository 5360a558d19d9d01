"""What formats, kinds of samples and arrays become: 8-bit RGB, upright."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from restore_env.images.arrays import Pixels
from restore_env.images.decoding import ImageError, as_rgb8, decode_image
from tests.support.image_files import (
    ALPHA,
    GREY,
    RGB,
    Array,
    deep_png,
    encode,
    exif_of,
    tiff,
    to16,
    to_float,
    with_chunk,
)

GREY_AS_RGB = GREY[..., None].repeat(3, axis=2)


def over_white(colour: Pixels, alpha: Pixels) -> Pixels:
    share = alpha / 255
    return np.asarray(np.rint(colour * share + 255 * (1 - share)), dtype=np.uint8)


BILEVEL = Image.fromarray(GREY).convert("1")
LOSSLESS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in ("PNG", "BMP", "TIFF")),
    *(("TIFF", {"compression": name}) for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits")),
    ("WEBP", {"lossless": True}),
]
LOSSY: list[tuple[str, str, dict[str, Any]]] = [
    ("RGB", "JPEG", {"quality": 95}),
    ("CMYK", "JPEG", {"quality": 95}),
    ("RGB", "WEBP", {"quality": 90}),
    ("RGB", "GIF", {}),
    ("RGB", "TIFF", {"compression": "jpeg"}),
]


def jpeg(image: Pixels) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(encode(image, "JPEG", quality=95))))


def files() -> Iterator[tuple[str, bytes, Pixels, int]]:
    """The name of each case, the file, its picture, and how far a value may lie from it, as alpha is rounded."""
    for file_format, options in LOSSLESS:
        for image, picture in ((RGB, RGB), (GREY, GREY_AS_RGB)):
            yield f"lossless {file_format} {options}", encode(image, file_format, **options), picture, 0
    for mode, file_format, options in LOSSY:
        data = encode(Image.fromarray(RGB).convert(mode), file_format, **options)
        yield f"lossy {file_format} {mode}", data, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), 0
    for file_format, options in (("JPEG2000", {}), ("PPM", {}), ("TGA", {}), ("AVIF", {"quality": 100})):
        for image in (RGB, GREY):
            data = encode(image, file_format, **options)
            yield f"{file_format} {image.ndim}", data, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), 0
    yield "bitmap", encode(BILEVEL, "PPM"), np.asarray(BILEVEL.convert("RGB")), 0
    yield "deep ppm", b"P6 40 24 65535\n" + to16(RGB).astype(">u2").tobytes(), RGB, 0
    yield "deep pgm", b"P5 40 24 65535\n" + to16(GREY).astype(">u2").tobytes(), GREY_AS_RGB, 0
    yield "mpo", encode(RGB, "MPO", save_all=True, append_images=[Image.fromarray(RGB)], quality=95), jpeg(RGB), 0
    for write, samples in ((deep_png, to16), (tiff, to16), (tiff, to_float)):
        yield f"deep {write.__name__} grey", write(samples(GREY)), GREY_AS_RGB, 0
    rgb = partial(tiff, photometric="rgb")
    yield "deep png rgb", deep_png(to16(RGB)), RGB, 0
    yield "deep png alpha", deep_png(np.concatenate([to16(RGB), to16(ALPHA)], axis=2)), over_white(RGB, ALPHA), 0
    for options in ({}, {"compression": "deflate", "predictor": True}, {"byteorder": ">"}, {"bigtiff": True}):
        yield f"16-bit tiff {options}", rgb(to16(RGB), **options), RGB, 0
    yield "16-bit tiff, white is zero", tiff(to16(255 - GREY), photometric="miniswhite"), GREY_AS_RGB, 0
    yield "float tiff", rgb(to_float(RGB)), RGB, 0
    yield "float tiff in tiles", rgb(to_float(RGB), compression="deflate", tile=(16, 16)), RGB, 0
    yield "double tiff", rgb(to_float(RGB).astype(np.float64)), RGB, 0
    premultiplied = np.rint(to16(RGB) * (to16(ALPHA) / 65535)).astype(np.uint16)
    for extra, colour, picture in (
        ("unassalpha", to16(RGB), over_white(RGB, ALPHA)),
        ("assocalpha", premultiplied, over_white(RGB, ALPHA)),
        ("unspecified", to16(RGB), RGB),  # no alpha
    ):
        yield extra, rgb(np.concatenate([colour, to16(ALPHA)], axis=2), extrasamples=[extra]), picture, 1
    for mode, opaque in (("LA", GREY_AS_RGB), ("RGBA", RGB)):
        image = Image.fromarray(np.concatenate([opaque, ALPHA], axis=2)).convert(mode)
        for file_format, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {})):
            yield f"{mode} {file_format}", encode(image, file_format, **options), over_white(opaque, ALPHA), 1
    palette = Image.fromarray(RGB).quantize(16)
    plain = np.asarray(palette.convert("RGB"))
    for file_format in ("PNG", "GIF", "BMP", "TIFF"):
        yield f"palette {file_format}", encode(palette, file_format), plain, 0
    for file_format in ("PNG", "GIF"):
        picture = np.where(np.asarray(palette)[..., None] == 5, 255, plain)
        yield f"transparent entry {file_format}", encode(palette, file_format, transparency=5), picture, 0
    frames = [Image.fromarray(frame).quantize(32).convert("RGB") for frame in (RGB, 255 - RGB, RGB[::-1].copy())]
    for file_format, options in (("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True})):
        data = encode(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
        yield f"first frame {file_format}", data, np.asarray(frames[0]), 0


@pytest.mark.parametrize(("data", "picture", "tolerance"), [pytest.param(*rest, id=name) for name, *rest in files()])
def test_what_a_file_becomes(data: bytes, picture: Pixels, tolerance: int) -> None:
    pixels = decode_image(data).pixels
    assert (pixels.dtype.name, pixels.flags.c_contiguous) == ("uint8", True)
    np.testing.assert_allclose(pixels.astype(int), picture, rtol=0, atol=tolerance)


@pytest.mark.parametrize("write", [deep_png, partial(tiff, photometric="rgb")], ids=["png", "tiff"])
def test_all_16_bits_count(write: Any) -> None:
    every = np.arange(65536, dtype=np.uint16).reshape(128, 512)
    samples = np.stack([every, every[::-1], every.T.reshape(128, 512)], axis=2)
    expected = np.rint(samples / 257).astype(np.uint8)  # 65535 becomes 255
    np.testing.assert_array_equal(decode_image(write(samples)).pixels, expected)


@pytest.mark.parametrize("samples", [to16(GREY), to16(RGB)], ids=["grey", "rgb"])
def test_transparent_colour_of_a_deep_png_becomes_white(samples: Array) -> None:
    colour = samples[3, 5]
    data = with_chunk(deep_png(samples), b"tRNS", np.atleast_1d(colour).astype(">u2").tobytes())
    pixels = decode_image(data).pixels
    assert (pixels[3, 5] == 255).all()
    np.testing.assert_array_equal(pixels[0, 0], (samples[0, 0] // 257) * np.ones(3, np.uint16))


def deep(suffix: str, orientation: int) -> bytes:
    """A file of 16 bits or floats with this EXIF orientation."""
    if suffix == "png":
        return with_chunk(deep_png(to16(RGB)), b"eXIf", exif_of(orientation).removeprefix(b"Exif\0\0"))
    samples = to16(RGB) if suffix == "tiff16" else to_float(RGB)
    tag = (int(ExifTags.Base.Orientation), "H", 1, orientation, True)
    return tiff(samples, photometric="rgb", extratags=[tag])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    "write",
    [
        *(partial(encode, RGB, name) for name in ("JPEG", "PNG", "TIFF")),
        partial(encode, RGB, "WEBP", lossless=True),
        partial(encode, RGB, "TIFF", compression="tiff_lzw"),
        *(partial(deep, kind) for kind in ("png", "tiff16", "float")),
    ],
)
def test_exif_orientation(write: Any, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = write(orientation) if write.func is deep else write(exif=exif)
    plain = Image.open(io.BytesIO(data)) if write.func is encode else Image.fromarray(RGB)
    plain.getexif()[ExifTags.Base.Orientation] = orientation
    photo = decode_image(data)
    np.testing.assert_array_equal(photo.pixels, np.asarray(ImageOps.exif_transpose(plain)))
    assert photo.pixels.flags.c_contiguous
    kept = Image.Exif()
    kept.load(photo.exif or b"")
    assert ExifTags.Base.Orientation not in kept


def test_broken_exif_does_not_cost_the_picture() -> None:
    data = encode(RGB, "PNG", exif=b"Exif\0\0II*\0" + b"\xff" * 40)
    photo = decode_image(data)
    np.testing.assert_array_equal(photo.pixels, RGB)
    assert photo.exif is None


# Arrays


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (RGB, RGB),
        (GREY, GREY_AS_RGB),
        (GREY[..., None], GREY_AS_RGB),
        (np.concatenate([RGB, ALPHA], axis=2), over_white(RGB, ALPHA)),
        (np.concatenate([GREY[..., None], ALPHA], axis=2), over_white(GREY_AS_RGB, ALPHA)),
        (to16(RGB), RGB),
        (to16(RGB).astype(">u2"), RGB),
        (to_float(RGB), RGB),
        (to_float(GREY).astype(np.float64), GREY_AS_RGB),
        (GREY > 100, (GREY_AS_RGB > 100) * np.uint8(255)),
        (RGB[::2, ::-1], RGB[::2, ::-1]),
    ],
    ids=["rgb", "grey", "grey-1", "rgba", "la", "16", "16-big-endian", "float", "double", "bool", "strided"],
)
def test_arrays(array: Array, expected: Pixels) -> None:
    before = array.copy()
    pixels = as_rgb8(array)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert np.abs(pixels.astype(int) - expected).max() <= (array.shape[-1] in (2, 4))  # alpha: rounded otherwise
    np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros(5, np.uint8), r"shape \(5,\) is no image"),
        (np.zeros((4, 4, 5), np.uint8), r"shape \(4, 4, 5\) is no image"),
        (np.zeros((0, 4, 3), np.uint8), "is no image"),
        (np.zeros((4, 4), np.int64), "int64 values"),
        (np.full((4, 4), np.inf), "not finite"),
        (np.full((4, 4), 255.0), r"must lie in \[0, 1\], got 255 to 255"),
    ],
)
def test_arrays_that_are_no_images(array: Array, reason: str) -> None:
    with pytest.raises(ImageError, match=rf"\Amine: .*{reason}"):
        as_rgb8(array, "mine")
