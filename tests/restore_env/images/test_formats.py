"""What formats, kinds of samples and arrays become: 8-bit RGB, upright."""

from __future__ import annotations

import io
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


# What formats and kinds of samples become


@pytest.mark.parametrize(
    ("file_format", "options"),
    [(name, {}) for name in ("PNG", "BMP", "TIFF")]
    + [("TIFF", {"compression": name}) for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits")]
    + [("WEBP", {"lossless": True})],
)
@pytest.mark.parametrize("image", [RGB, GREY], ids=["rgb", "grey"])
def test_lossless_files_come_back_to_the_bit(file_format: str, options: dict[str, Any], image: Pixels) -> None:
    pixels = decode_image(encode(image, file_format, **options)).pixels
    assert (pixels.dtype.name, pixels.flags.c_contiguous) == ("uint8", True)
    np.testing.assert_array_equal(pixels, image if image.ndim == 3 else GREY_AS_RGB)


@pytest.mark.parametrize(
    ("mode", "file_format", "options"),
    [
        ("RGB", "JPEG", {"quality": 95}),
        ("CMYK", "JPEG", {"quality": 95}),
        ("RGB", "WEBP", {"quality": 90}),
        ("RGB", "GIF", {}),
        ("RGB", "TIFF", {"compression": "jpeg"}),
    ],
)
def test_lossy_files_come_back_as_pillow_decodes_them(mode: str, file_format: str, options: dict[str, Any]) -> None:
    data = encode(Image.fromarray(RGB).convert(mode), file_format, **options)
    np.testing.assert_array_equal(decode_image(data).pixels, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (deep_png(to16(GREY)), GREY_AS_RGB),
        (deep_png(to16(RGB)), RGB),
        (deep_png(np.concatenate([to16(RGB), to16(ALPHA)], axis=2)), over_white(RGB, ALPHA)),
        (tiff(to16(GREY)), GREY_AS_RGB),
        (tiff(to16(RGB), photometric="rgb"), RGB),
        (tiff(to16(RGB), photometric="rgb", compression="deflate", predictor=True), RGB),
        (tiff(to16(RGB), photometric="rgb", byteorder=">"), RGB),
        (tiff(to16(RGB), photometric="rgb", bigtiff=True), RGB),
        (tiff(to16(255 - GREY), photometric="miniswhite"), GREY_AS_RGB),
        (tiff(to_float(GREY)), GREY_AS_RGB),
        (tiff(to_float(RGB), photometric="rgb"), RGB),
        (tiff(to_float(RGB), photometric="rgb", compression="deflate", tile=(16, 16)), RGB),
        (tiff(to_float(RGB).astype(np.float64), photometric="rgb"), RGB),
    ],
    ids=[f"{kind}-{number}" for number, kind in enumerate(["png"] * 3 + ["tiff-16-bit"] * 6 + ["tiff-float"] * 4)],
)
def test_deep_samples_are_rounded_to_8_bits(data: bytes, expected: Pixels) -> None:
    np.testing.assert_array_equal(decode_image(data).pixels, expected)


@pytest.mark.parametrize("write", [deep_png, partial(tiff, photometric="rgb")], ids=["png", "tiff"])
def test_all_16_bits_count(write: Any) -> None:
    every = np.arange(65536, dtype=np.uint16).reshape(128, 512)
    samples = np.stack([every, every[::-1], every.T.reshape(128, 512)], axis=2)
    expected = np.rint(samples / 257).astype(np.uint8)  # 65535 becomes 255
    np.testing.assert_array_equal(decode_image(write(samples)).pixels, expected)


@pytest.mark.parametrize("extra", ["unassalpha", "assocalpha", "unspecified"])
def test_fourth_sample_of_a_deep_tiff(extra: str) -> None:
    """Straight or premultiplied alpha is composited over white, what is no alpha is left out."""
    colour, alpha = to16(RGB), to16(ALPHA)
    if extra == "assocalpha":
        colour = np.rint(colour * (alpha / 65535)).astype(np.uint16)
    data = tiff(np.concatenate([colour, alpha], axis=2), photometric="rgb", extrasamples=[extra])
    expected = RGB if extra == "unspecified" else over_white(RGB, ALPHA)
    difference = decode_image(data).pixels.astype(int) - expected
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_composited_over_white(mode: str, file_format: str) -> None:
    colour = GREY_AS_RGB if mode == "LA" else RGB
    image = Image.fromarray(np.concatenate([colour, ALPHA], axis=2)).convert(mode)
    options = {"lossless": True, "exact": True} if file_format == "WEBP" else {}
    difference = decode_image(encode(image, file_format, **options)).pixels.astype(int) - over_white(colour, ALPHA)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize(
    ("file_format", "options"),
    [(name, {}) for name in ("PNG", "GIF", "BMP", "TIFF")] + [(name, {"transparency": 5}) for name in ("PNG", "GIF")],
)
def test_a_palette_and_its_transparent_entry_which_becomes_white(file_format: str, options: dict[str, int]) -> None:
    image = Image.fromarray(RGB).quantize(16)
    expected = np.asarray(image.convert("RGB")).copy()
    expected[np.asarray(image) == options.get("transparency")] = 255
    np.testing.assert_array_equal(decode_image(encode(image, file_format, **options)).pixels, expected)


@pytest.mark.parametrize("samples", [to16(GREY), to16(RGB)], ids=["grey", "rgb"])
def test_transparent_colour_of_a_deep_png_becomes_white(samples: Array) -> None:
    colour = samples[3, 5]
    data = with_chunk(deep_png(samples), b"tRNS", np.atleast_1d(colour).astype(">u2").tobytes())
    pixels = decode_image(data).pixels
    assert (pixels[3, 5] == 255).all()
    np.testing.assert_array_equal(pixels[0, 0], (samples[0, 0] // 257) * np.ones(3, np.uint16))


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation(file_format: str) -> None:
    frames = [Image.fromarray(frame).quantize(32).convert("RGB") for frame in (RGB, 255 - RGB, RGB[::-1].copy())]
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = encode(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(decode_image(data).pixels, np.asarray(frames[0]))


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
