"""Image files that are refused, damaged ones, and how files are read."""

from __future__ import annotations

import os
import re
import struct
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from restore_env.images.decoding import ImageError, Photo, decode_image, read_image
from restore_env.images.encoding import write_image
from tests.support.image_files import (
    ALPHA,
    GREY,
    RGB,
    deep_png,
    encode,
    exif_of,
    png_chunk,
    tiff,
    tiff_of_parts,
    tiff_strip,
    to16,
    to_float,
    with_chunk,
)

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


def declaring(file_format: str, side: int) -> bytes:
    """A small file that declares this height and width."""
    small, size = encode(RGB, file_format), RGB.shape[1::-1]
    if file_format == "PNG":
        return small[:8] + png_chunk(b"IHDR", struct.pack(">II", side, side) + small[24:29]) + small[33:]
    if file_format == "TIFF":
        for tag, was in zip((256, 257), size, strict=True):
            small = small.replace(struct.pack("<HHII", tag, 4, 1, was), struct.pack("<HHII", tag, 4, 1, side))
        return small
    pattern = {"BMP": "<ii", "GIF": "<HH"}[file_format]
    return small.replace(struct.pack(pattern, *size), struct.pack(pattern, side, side))


@pytest.mark.parametrize(
    ("file_format", "side", "reason"),
    [(name, 60_000, "more than 179 megapixels") for name in ("PNG", "BMP", "TIFF", "GIF")]
    + [(name, 13_000, "damaged") for name in ("PNG", "BMP", "TIFF")],
)
def test_small_files_that_declare_huge_images_cost_no_memory(file_format: str, side: int, reason: str) -> None:
    resource = pytest.importorskip("resource")
    data, start, peak = (
        declaring(file_format, side),
        time.monotonic(),
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    )
    assert_refused(data, reason)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 100_000  # KiB; decoded they would take 500 MiB
    assert time.monotonic() - start < 5


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
        assert (pixels.dtype.name, pixels.ndim, pixels.shape[2]) == ("uint8", 3, 3)
        return True
    assert re.fullmatch("damaged: .*", message)  # one line: . does not match a newline
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


# TIFFs whose strips or tiles do not hold the image that they declare

STRIPS = {
    "raw": (1, None),
    "lzw": (5, "tiff_lzw"),
    "packbits": (32773, "packbits"),
    "deflate": (8, "tiff_adobe_deflate"),
}
NOISE = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", STRIPS)
def test_a_tiff_needs_all_of_its_strips_and_tiles(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    number, name = STRIPS[kind]
    upper, lower, whole = (tiff_strip(part, name) for part in (NOISE[:16], NOISE[16:], NOISE))
    tile = tiff_strip(NOISE[:16, :16], name)
    padding = bytes(len(NOISE.tobytes()))  # as many bytes as the image needs, but no part of it

    def made(*parts: bytes, **layout: int) -> bytes:
        return tiff_of_parts([*parts], 48, 32, number, **layout) + padding

    np.testing.assert_array_equal(decode_image(made(whole)).pixels, NOISE)
    np.testing.assert_array_equal(decode_image(made(upper, lower, rows=16)).pixels, NOISE)
    assert decode_image(made(*[tile] * 6, tile=16)).pixels.shape == NOISE.shape
    for data in (
        made(upper),
        made(upper, rows=16),
        made(whole[: len(whole) // 2]),
        made(upper, lower[:-20], rows=16),
        made(*[tile] * 5, tile=16),
        made(*[tiff_strip(NOISE[:8, :16], name)] * 6, tile=16),
    ):
        assert_refused(data, "damaged")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("compression", [1, 5, 6, 7, 8, 32773, 34925, 50000])
def test_a_tiffs_strips_bound_what_it_can_declare(compression: int) -> None:
    assert_refused(tiff_of_parts([bytes(1800)], 24, 6_422_545, compression), "damaged|can hold")
    assert_refused(tiff_of_parts([bytes(1800)], 40, 3_372_220_440, compression, rows=1), "more than 179 megapixels")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Unable to allocate 412. MiB for an array"),
        cv2.error("OpenCV(4.9.0) error: (-4:Insufficient memory) Failed to allocate 324000000 bytes"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
        RuntimeError("could not create a primitive"),
    ],
)
def test_a_lack_of_memory_is_no_damage(error: Exception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Image.Image, "load", fail)
    assert_refused(FILES["png"], "there is not enough memory to decode it")
    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(ImageError, match="there is not enough memory to encode it"):
        write_image(tmp_path / "photo.png", Photo(RGB))


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
    if hasattr(os, "mkfifo"):  # reading it would hang
        os.mkfifo(tmp_path / "pipe.png")
        with pytest.raises(ImageError, match="no regular file"):
            read_image(tmp_path / "pipe.png")

    path.write_bytes(FILES["jpeg"])  # the content decides, not the name
    np.testing.assert_array_equal(read_image(str(path)).pixels, decode_image(FILES["jpeg"]).pixels)

    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ImageError, match=r"photo\.png: cannot be read \(Permission denied\)"):
        read_image(path)


def test_overlapping_threads_leave_the_warning_filters_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    filters, log_level = list(warnings.filters), cv2.utils.logging.getLogLevel()
    both_inside, first_is_out = threading.Barrier(2, timeout=10), threading.Event()
    open_image = Image.open

    def open_slowly(*args: Any, **options: Any) -> Image.Image:
        if both_inside.wait():
            assert first_is_out.wait(10)
            warnings.warn("still to be silenced", stacklevel=1)
        return open_image(*args, **options)

    def decode(_: int) -> Photo:
        photo = decode_image(FILES["png"])
        first_is_out.set()
        return photo

    monkeypatch.setattr(Image, "open", open_slowly)
    with ThreadPoolExecutor(2) as pool:
        assert len(list(pool.map(decode, range(2)))) == 2
    assert list(warnings.filters) == filters
    assert cv2.utils.logging.getLogLevel() == log_level
