from __future__ import annotations

import importlib
import io
import os
import stat
import struct
import threading
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, ImageOps

from restore_env.images import (
    ImageError,
    Photo,
    as_rgb8,
    decode_image,
    read_image,
)
from restore_env.writing import WRITABLE, check_writable, write_atomically, write_image

tifffile: Any = importlib.import_module("tifffile")  # it comes with scikit-image; untyped

Array = npt.NDArray[Any]
Byte = npt.NDArray[np.uint8]


def picture(height: int = 24, width: int = 40) -> Byte:
    """Smooth colours, different in every corner."""
    corners = np.random.default_rng(3).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(corners).resize((width, height), Image.Resampling.BICUBIC))


RGB = picture()
GREY = RGB[..., 0].copy()
ALPHA = np.linspace(0, 255, RGB.shape[1]).round().astype(np.uint8)[None, :, None].repeat(RGB.shape[0], axis=0)
GREY_AS_RGB = GREY[..., None].repeat(3, axis=2)


def over_white(colour: Byte, alpha: Byte) -> Byte:
    share = alpha / 255
    return np.asarray(np.rint(colour * share + 255 * (1 - share)), dtype=np.uint8)


def encode(image: Image.Image | Array, file_format: str, **options: Any) -> bytes:
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


# What formats and kinds of samples become


@pytest.mark.parametrize(
    ("file_format", "options"),
    [
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
        ("TIFF", {"compression": "packbits"}),
    ],
)
@pytest.mark.parametrize("image", [RGB, GREY], ids=["rgb", "grey"])
def test_lossless_files_come_back_to_the_bit(file_format: str, options: dict[str, Any], image: Byte) -> None:
    pixels = decode_image(encode(image, file_format, **options)).pixels
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, image if image.ndim == 3 else GREY_AS_RGB)


@pytest.mark.parametrize(
    ("file_format", "options"),
    [("JPEG", {"quality": 95}), ("WEBP", {"quality": 90}), ("GIF", {}), ("TIFF", {"compression": "jpeg"})],
)
def test_lossy_files_come_back_as_pillow_decodes_them(file_format: str, options: dict[str, Any]) -> None:
    data = encode(RGB, file_format, **options)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(decode_image(data).pixels, expected)
    assert np.abs(expected.astype(int) - RGB).mean() < 8


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
def test_deep_samples_are_rounded_to_8_bits(data: bytes, expected: Byte) -> None:
    np.testing.assert_array_equal(decode_image(data).pixels, expected)


@pytest.mark.parametrize(
    "encode_deep", [deep_png, lambda samples: tiff(samples, photometric="rgb")], ids=["png", "tiff"]
)
def test_all_16_bits_count(encode_deep: Callable[[Array], bytes]) -> None:
    every = np.arange(65536, dtype=np.uint16).reshape(128, 512)
    samples = np.stack([every, every[::-1], every.T.reshape(128, 512)], axis=2)
    expected = np.rint(samples / 257).astype(np.uint8)  # 65535 becomes 255
    np.testing.assert_array_equal(decode_image(encode_deep(samples)).pixels, expected)


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


def test_palette() -> None:
    image = Image.fromarray(RGB).quantize(16)
    expected = np.asarray(image.convert("RGB"))
    for file_format in ("PNG", "GIF", "BMP", "TIFF"):
        np.testing.assert_array_equal(decode_image(encode(image, file_format)).pixels, expected, err_msg=file_format)


@pytest.mark.parametrize("file_format", ["PNG", "GIF"])
def test_transparent_palette_entry_becomes_white(file_format: str) -> None:
    image = Image.fromarray(RGB).quantize(16)
    expected = np.asarray(image.convert("RGB")).copy()
    expected[np.asarray(image) == 5] = 255
    np.testing.assert_array_equal(decode_image(encode(image, file_format, transparency=5)).pixels, expected)


@pytest.mark.parametrize("samples", [to16(GREY), to16(RGB)], ids=["grey", "rgb"])
def test_transparent_colour_of_a_deep_png_becomes_white(samples: Array) -> None:
    colour = samples[3, 5]
    data = with_chunk(deep_png(samples), b"tRNS", np.atleast_1d(colour).astype(">u2").tobytes())
    pixels = decode_image(data).pixels
    assert (pixels[3, 5] == 255).all()
    np.testing.assert_array_equal(pixels[0, 0], (samples[0, 0] // 257) * np.ones(3, np.uint16))


def test_cmyk_jpeg() -> None:
    data = encode(Image.fromarray(RGB).convert("CMYK"), "JPEG", quality=95)
    pixels = decode_image(data).pixels
    np.testing.assert_array_equal(pixels, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    assert np.abs(pixels.astype(int) - RGB).mean() < 8


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation(file_format: str) -> None:
    frames = [Image.fromarray(frame).quantize(32).convert("RGB") for frame in (RGB, 255 - RGB, RGB[::-1].copy())]
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = encode(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(decode_image(data).pixels, np.asarray(frames[0]))


def test_several_pages_of_a_deep_tiff_give_the_first() -> None:
    np.testing.assert_array_equal(
        decode_image(tiff(np.stack([to16(RGB), to16(255 - RGB)]), photometric="rgb")).pixels, RGB
    )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("file_format", "options"),
    [("JPEG", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})],
)
def test_exif_orientation(file_format: str, options: dict[str, Any], orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encode(RGB, file_format, exif=exif, **options)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    photo = decode_image(data)
    np.testing.assert_array_equal(photo.pixels, expected)
    assert photo.pixels.flags.c_contiguous
    kept = Image.Exif()
    kept.load(photo.exif or b"")
    assert ExifTags.Base.Orientation not in kept


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_deep_images(orientation: int) -> None:
    plain = Image.fromarray(RGB)
    plain.getexif()[ExifTags.Base.Orientation] = orientation
    expected = np.asarray(ImageOps.exif_transpose(plain))
    tag = [(int(ExifTags.Base.Orientation), "H", 1, orientation, True)]
    files = {
        "png": with_chunk(deep_png(to16(RGB)), b"eXIf", exif_of(orientation).removeprefix(b"Exif\0\0")),
        "tiff16": tiff(to16(RGB), photometric="rgb", extratags=tag),
        "float": tiff(to_float(RGB), photometric="rgb", extratags=tag),
    }
    for name, data in files.items():
        np.testing.assert_array_equal(decode_image(data).pixels, expected, err_msg=name)


def test_broken_exif_does_not_cost_the_picture() -> None:
    data = encode(RGB, "PNG", exif=b"Exif\0\0II*\0" + b"\xff" * 40)
    photo = decode_image(data)
    np.testing.assert_array_equal(photo.pixels, RGB)
    assert photo.exif is None


# What is refused: in one line that names the file


def assert_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=rf"\Aphoto\.png: .*{reason}.*\Z"):  # no newline: . does not match it
        decode_image(data, "photo.png")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"once upon a time there was a text file", "not an image of a supported kind"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
        (b"II*\0", "damaged"),
        (tiff(np.full((8, 8), np.nan, np.float32)), "not finite"),
        (tiff(np.full((8, 8, 3), 1.5, np.float32), photometric="rgb"), r"must lie in \[0, 1\], got 1.5"),
        (tiff(np.full((8, 8), -0.5, np.float32)), r"must lie in \[0, 1\], got -0.5"),
        (tiff(np.ones((8, 8), np.int32)), "a TIFF of a kind that is not supported"),
        (tiff(to16(RGB).transpose(2, 0, 1), photometric="rgb", planarconfig="separate"), "3 sample.* in planes"),
        (tiff(np.concatenate([to16(RGB), to16(ALPHA)], axis=2), photometric="separated"), "photometric 5"),
    ],
)
def test_what_cannot_be_decoded(data: bytes, reason: str) -> None:
    assert_refused(data, reason)


def png_that_declares(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(bytes(1000)))


def bmp_that_declares(width: int, height: int) -> bytes:
    return (
        b"BM"
        + struct.pack("<IHHIIiiHHIIiiII", 1054, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
        + bytes(1000)
    )


def tiff_that_declares(width: int, height: int) -> bytes:
    small = encode(RGB, "TIFF")
    for was, becomes in ((RGB.shape[1], width), (RGB.shape[0], height)):
        tag = 256 if was == RGB.shape[1] else 257
        small = small.replace(struct.pack("<HHII", tag, 4, 1, was), struct.pack("<HHII", tag, 4, 1, becomes))
    return small


def gif_that_declares(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + encode(RGB, "GIF")[10:]


@pytest.mark.parametrize(
    ("declare", "side", "reason"),
    [
        (png_that_declares, 60_000, "more than 179 megapixels"),
        (bmp_that_declares, 60_000, "more than 179 megapixels"),
        (tiff_that_declares, 60_000, "more than 179 megapixels"),
        (gif_that_declares, 60_000, "more than 179 megapixels"),
        (png_that_declares, 13_000, "damaged"),
        (bmp_that_declares, 13_000, "damaged"),
        (tiff_that_declares, 13_000, "damaged"),
    ],
)
def test_small_files_that_declare_huge_images_cost_no_memory(
    declare: Callable[[int, int], bytes], side: int, reason: str
) -> None:
    resource = pytest.importorskip("resource")
    data, beginning, peak = declare(side, side), time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert_refused(data, reason)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 100_000  # KiB; decoded they would take 500 MiB
    assert time.monotonic() - beginning < 5


# Damaged files: an ImageError or a picture, no other exception, nothing on stderr

FILES = {
    "png": encode(RGB, "PNG", exif=exif_of(6)),
    "png-palette": encode(Image.fromarray(RGB).quantize(16), "PNG", transparency=3),
    "png-16-bit": with_chunk(deep_png(to16(RGB)), b"eXIf", exif_of(6).removeprefix(b"Exif\0\0")),
    "jpeg": encode(RGB, "JPEG", exif=exif_of(6)),
    "jpeg-cmyk": encode(Image.fromarray(RGB).convert("CMYK"), "JPEG"),
    "webp": encode(RGB, "WEBP", exif=exif_of(6)),
    "webp-lossless": encode(RGB, "WEBP", lossless=True),
    "gif": encode(RGB, "GIF"),
    "bmp": encode(RGB, "BMP"),
    "tiff": encode(RGB, "TIFF", exif=exif_of(6)),
    "tiff-lzw": encode(RGB, "TIFF", compression="tiff_lzw"),
    "tiff-deflate": encode(RGB, "TIFF", compression="tiff_adobe_deflate"),
    "tiff-jpeg": encode(RGB, "TIFF", compression="jpeg"),
    "tiff-fax": encode(Image.fromarray(GREY).convert("1"), "TIFF", compression="group4"),
    "tiff-16-bit": tiff(to16(RGB), photometric="rgb", compression="deflate"),
    "tiff-float": tiff(to_float(RGB), photometric="rgb"),
}
every_file = pytest.mark.parametrize("data", FILES.values(), ids=FILES)


def is_picture(data: bytes) -> bool:
    """Decode; False stands for an ImageError. Neither may be other than it should be."""
    try:
        pixels = decode_image(data, "damaged").pixels
    except ImageError as error:
        message = str(error)
    else:
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3
        assert pixels.shape[2] == 3
        return True
    assert message.startswith("damaged: ")
    assert "\n" not in message
    return False


@every_file
def test_files_cut_short(data: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    assert is_picture(data)
    for length in range(0, len(data), 1 + len(data) // 150):
        is_picture(data[:length])
    assert not is_picture(data[: len(data) // 2]), "half a file must be an error"
    assert capfd.readouterr() == ("", "")


@every_file
def test_files_with_altered_bytes(data: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for turn in range(150):
        altered = bytearray(data)
        end = len(data) if turn % 2 else min(len(data), 200)  # headers get their share
        for at in rng.integers(0, end, size=rng.integers(1, 5)):
            altered[at] = rng.integers(256)
        is_picture(bytes(altered))
    assert capfd.readouterr() == ("", "")


@given(st.sampled_from([b"", *(data[:8] for data in FILES.values())]), st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_any_bytes(start: bytes, rest: bytes) -> None:
    is_picture(start + rest)


# Reading files


def test_read_image_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "photo.png"
    with pytest.raises(ImageError, match=r"photo\.png: no such file"):
        read_image(path)

    path.write_text("not a photo at all")
    with pytest.raises(ImageError, match=r"photo\.png: .*not an image of a supported kind"):
        read_image(path)
    with pytest.raises(ImageError, match="is a folder, not an image file"):
        read_image(tmp_path)

    path.write_bytes(FILES["jpeg"])  # the content counts, not the name
    np.testing.assert_array_equal(read_image(str(path)).pixels, decode_image(FILES["jpeg"]).pixels)

    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ImageError, match=r"photo\.png: cannot be read \(Permission denied\)"):
        read_image(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "photo.png")
    with pytest.raises(ImageError, match="no regular file"):
        read_image(tmp_path / "photo.png")


def test_overlapping_threads_leave_the_warning_filters_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    filters, log_level = list(warnings.filters), cv2.utils.logging.getLogLevel()
    both_inside, first_is_out = threading.Barrier(2, timeout=10), threading.Event()
    open_image = Image.open

    def open_slowly(*args: Any, **options: Any) -> Image.Image:
        both_inside.wait()
        if threading.current_thread().name == "last out":
            assert first_is_out.wait(10)
            warnings.warn("still to be silenced", stacklevel=1)
        return open_image(*args, **options)

    monkeypatch.setattr(Image, "open", open_slowly)
    photos: list[Photo] = []
    threads = [
        threading.Thread(name=name, target=lambda: photos.append(decode_image(FILES["png"])))
        for name in ("first out", "last out")
    ]
    for thread in threads:
        thread.start()
    threads[0].join()
    first_is_out.set()
    threads[1].join()
    assert len(photos) == 2
    assert list(warnings.filters) == filters
    assert cv2.utils.logging.getLogLevel() == log_level


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
def test_arrays(array: Array, expected: Byte) -> None:
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


# Writing

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize("suffix", [*WRITABLE, ".PNG"])
@pytest.mark.parametrize("source", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_written_photos_keep_pixels_profile_and_exif(source: str, suffix: str, tmp_path: Path) -> None:
    photo = decode_image(encode(RGB, source, exif=exif_of(6), icc_profile=SRGB))
    restored = Photo(photo.pixels.repeat(2, axis=0).repeat(2, axis=1), photo.icc_profile, photo.exif)
    path = tmp_path / f"restored{suffix}"
    write_image(path, restored)
    again = read_image(path)
    loss = np.abs(again.pixels.astype(int) - restored.pixels)
    assert loss.max() == 0 if suffix not in (".jpg", ".jpeg") else loss.mean() < 4
    assert again.icc_profile == SRGB
    with Image.open(path) as image:
        exif = image.getexif()
        assert exif[ExifTags.Base.Make] == "Camera"
        assert exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime] == 0.5
        assert exif.get(ExifTags.Base.Orientation, 1) == 1


def test_a_profile_that_no_longer_describes_the_pixels_is_dropped() -> None:
    grey_profile = SRGB[:16] + b"GRAY" + SRGB[20:]
    assert decode_image(encode(GREY, "PNG", icc_profile=grey_profile)).icc_profile is None


@pytest.mark.parametrize("suffix", WRITABLE)
def test_photos_without_profile_and_exif(suffix: str, tmp_path: Path) -> None:
    write_image(tmp_path / f"plain{suffix}", Photo(RGB))
    again = read_image(tmp_path / f"plain{suffix}")
    assert again.pixels.shape == RGB.shape
    assert again.icc_profile is None
    assert again.exif is None


def refuse(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("broken", [(Image.Image, "save"), (Path, "replace")], ids=["encoder", "rename"])
def test_a_failed_write_leaves_everything_as_it_was(
    broken: tuple[type, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(b"what was here before")
    monkeypatch.setattr(*broken, refuse)
    with pytest.raises(ImageError, match=r"photo\.png: cannot be written.*No space left on device"):
        write_image(path, Photo(RGB))
    assert path.read_bytes() == b"what was here before"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "weights", b"1234")
    assert list(tmp_path.iterdir()) == []


def test_write_atomically_replaces_and_heeds_the_umask(tmp_path: Path) -> None:
    path = tmp_path / ("long" * 60)  # a temporary name must not be longer than what is allowed
    path.write_bytes(b"old")
    before = os.umask(0o027)
    try:
        write_atomically(path, b"new")
    finally:
        os.umask(before)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["photo.xyz", "photo", "photo.gif"])
def test_unknown_suffixes(name: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=rf"{name}: cannot write .*; use \.png, \.jpg"):
        check_writable(tmp_path / name)
    with pytest.raises(ImageError, match="cannot write"):
        write_image(tmp_path / name, Photo(RGB))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("suffix", "longest"), [(".webp", 16383), (".jpg", 65500)])
def test_too_large_for_the_format(suffix: str, longest: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"panorama{suffix}"
    with pytest.raises(ImageError, match=rf"panorama{suffix}: {longest + 1}x2 is too large for .* {longest} pixels"):
        write_image(path, Photo(np.zeros((2, longest + 1, 3), np.uint8)))
    assert list(tmp_path.iterdir()) == []
    write_image(path, Photo(np.zeros((2, longest, 3), np.uint8)))
    assert read_image(path).pixels.shape == (2, longest, 3)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("target", ["missing/photo.png", "folder.png"])
def test_places_that_cannot_be_written_to(target: str, tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ImageError, match=rf"{target}: cannot be written \("):
        write_image(tmp_path / target, Photo(RGB))
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]


def test_exif_that_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"photo\.jpg: cannot be written as JPEG \(EXIF data is too long\)"):
        write_image(tmp_path / "photo.jpg", Photo(RGB, exif=b"Exif\0\0" + bytes(70_000)))
