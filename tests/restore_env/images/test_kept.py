"""What a photo keeps from one file to another: one channel, transparency, 16 bits and metadata."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin

from restore_env.images.arrays import over_white
from restore_env.images.decoding import ImageError, Photo, decode_image, read_image
from restore_env.images.encoding import write_image
from restore_env.images.formats import FORMATS as EVERY
from restore_env.images.formats import WRITTEN
from restore_env.images.samples import tool_input, with_result, working_image
from restore_env.images.tiling import to_tensor
from tests.support.image_files import ALPHA, GREY, RGB, Array, deep_png, encode, exif_of, tiff, to16, to_float

FORMATS = {kind.name: kind.suffixes[0] for kind in WRITTEN.values()}
every_format = pytest.mark.parametrize("suffix", FORMATS.values())
SQUARE = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r exif:PixelXDimension="40" tiff:Orientation="6"/></x:xmpmeta>'
IPTC = b"\x1c\x02\x50\x00\x06Photog"


def unchanged(photo: Photo) -> Photo:
    """The photo as a chain without tools leaves it."""
    return with_result(photo, to_tensor(tool_input(photo)), 1)


def test_large_photos_of_8_bits_are_held_in_half_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """What no tool changes is the same; deeper photos keep their depth."""
    monkeypatch.setattr("restore_env.images.samples.LARGE", RGB[..., 0].size - 1)
    levels = np.arange(RGB.size).astype(np.uint8).reshape(RGB.shape)
    half = working_image(Photo(levels))
    assert half.dtype == torch.float16
    np.testing.assert_array_equal(with_result(Photo(levels), half, 1).pixels, levels)
    deep = Photo(RGB, exact=to16(RGB))
    assert working_image(deep).dtype == torch.float32
    monkeypatch.setattr("restore_env.images.samples.LARGE", RGB[..., 0].size)
    assert working_image(Photo(levels)).dtype == torch.float32


BITS = Image.fromarray(GREY).convert("1")
GREYS = {
    "png": encode(GREY),
    "jpeg": encode(GREY, "JPEG"),
    "one bit": encode(BITS),
    "fax": encode(BITS, "TIFF", compression="group4"),
    "grey and alpha": encode(Image.fromarray(np.concatenate([GREY[..., None], ALPHA], axis=2))),
    "16-bit png": deep_png(to16(GREY)),
    "16-bit tiff": tiff(to16(GREY)),
    "grey palette": encode(Image.fromarray(GREY).convert("P")),
}


@pytest.mark.parametrize("kind", GREYS)
def test_one_channel_stays_one(kind: str, tmp_path: Path) -> None:
    photo = decode_image(GREYS[kind])
    assert photo.grey
    for suffix in (".png", ".jpg", ".tif"):
        write_image(tmp_path / f"a{suffix}", unchanged(photo))
        with Image.open(tmp_path / f"a{suffix}") as image:
            assert image.mode in ("L", "LA", "I;16")
    assert not decode_image(encode(RGB)).grey


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
@pytest.mark.parametrize("colour", [RGB, GREY[..., None]], ids=["rgb", "grey"])
def test_transparency_is_kept(suffix: str, colour: Array, tmp_path: Path) -> None:
    source = np.concatenate([colour, ALPHA], axis=2)
    photo = decode_image(encode(Image.fromarray(source)))
    assert write_image(tmp_path / f"a{suffix}", unchanged(photo)) == ()
    with Image.open(tmp_path / f"a{suffix}") as image:
        written = np.asarray(image.convert("RGBA"))
    np.testing.assert_array_equal(written[..., 3], ALPHA[..., 0])
    visible = ALPHA[..., 0] > 0
    np.testing.assert_array_equal(written[visible][:, :3], np.broadcast_to(colour, RGB.shape)[visible])


def test_a_format_without_transparency_shows_white_and_says_so(tmp_path: Path) -> None:
    photo = decode_image(encode(Image.fromarray(np.concatenate([RGB, ALPHA], axis=2))))
    (lost,) = write_image(tmp_path / "a.jpg", photo)
    assert "no transparency" in lost
    assert np.abs(read_image(tmp_path / "a.jpg").pixels.astype(int) - photo.pixels).mean() < 4
    opaque = decode_image(encode(Image.fromarray(RGB).convert("RGBA")))
    assert write_image(tmp_path / "b.jpg", opaque) == ()


def test_compositing_over_white_is_exact_for_every_colour_and_opacity() -> None:
    values = np.arange(256, dtype=np.uint8)
    colour, alpha = np.meshgrid(values, values, indexing="ij")
    expected = np.floor((colour.astype(float) * alpha + 255.0 * (255 - alpha.astype(float))) / 255 + 0.5)
    np.testing.assert_array_equal(over_white(np.stack([colour, alpha], axis=2))[..., 0], expected)


def test_tools_see_the_nearest_colour_under_full_transparency() -> None:
    source = np.full((20, 20, 4), (250, 0, 0, 255), np.uint8)
    source[:, 10:] = (0, 0, 255, 0)
    photo = decode_image(encode(Image.fromarray(source)))
    np.testing.assert_array_equal(tool_input(photo), np.full((20, 20, 3), (250, 0, 0), np.uint8))
    large = with_result(photo, torch.ones(1, 3, 80, 80), 4)
    assert large.alpha is not None
    assert large.alpha.shape == (80, 80)
    assert (large.alpha[:, :32] == 255).all()
    assert (large.alpha[:, 48:] == 0).all()


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize(("source", "suffix"), [("png", ".png"), ("png", ".tif"), ("tiff", ".tif"), ("tiff", ".png")])
def test_16_bits_stay(source: str, suffix: str, alpha: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    samples = rng.integers(0, 65536, (9, 11, 4 if alpha else 3), dtype=np.uint16)
    if alpha:
        samples[..., 3] |= 1
    extra = {"extrasamples": ["unassalpha"]} if alpha else {}
    photo = decode_image(deep_png(samples) if source == "png" else tiff(samples, photometric="rgb", **extra))
    write_image(tmp_path / f"a{suffix}", unchanged(photo))
    again = read_image(tmp_path / f"a{suffix}")
    assert again.exact is not None
    np.testing.assert_array_equal(again.exact, samples[..., :3])
    assert (again.alpha is not None) == alpha
    if again.alpha is not None:
        np.testing.assert_array_equal(again.alpha, samples[..., 3])
    (lost,) = write_image(tmp_path / "a.webp", photo)
    assert "8 bits" in lost


def test_floats_stay_floats_in_a_tiff_and_become_16_bits_in_a_png(tmp_path: Path) -> None:
    photo = decode_image(tiff(to_float(RGB), photometric="rgb"))
    for suffix, kind in ((".tif", "float32"), (".png", "uint16")):
        write_image(tmp_path / f"a{suffix}", unchanged(photo))
        again = read_image(tmp_path / f"a{suffix}")
        assert again.exact is not None
        assert again.exact.dtype.name == kind
        np.testing.assert_array_equal(again.pixels, RGB)


# Metadata


def described(file_format: str) -> bytes:
    """A file with all the metadata that the format has."""
    exif = Image.Exif()
    exif.load(exif_of())
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExifImageWidth] = 40
    options = {"exif": exif.tobytes(), "dpi": (300, 300)}
    if file_format == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_text("Author", "Somebody")
        text.add_itxt("XML:com.adobe.xmp", SQUARE.decode())
        return encode(RGB, "PNG", pnginfo=text, **options)
    photoshop = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + len(IPTC).to_bytes(4, "big") + IPTC + b"\0" * (len(IPTC) % 2)
    segment = b"\xff\xed" + (len(photoshop) + 2).to_bytes(2, "big") + photoshop
    return encode(RGB, "JPEG", xmp=SQUARE, comment=b"a comment", extra=segment, **options)


@every_format
@pytest.mark.parametrize("source", ["PNG", "JPEG"])
def test_metadata_is_kept_where_the_format_holds_it(source: str, suffix: str, tmp_path: Path) -> None:
    photo = decode_image(described(source))
    path, kept = tmp_path / f"a{suffix}", WRITTEN[suffix].kept
    large = with_result(photo, to_tensor(photo.pixels.repeat(2, axis=0).repeat(2, axis=1)), 2)
    write_image(path, large)
    again = read_image(path)
    with Image.open(path) as image:
        directory = image.getexif().get_ifd(ExifTags.IFD.Exif)
    assert directory[ExifTags.Base.ExposureTime] == 0.5
    assert directory[ExifTags.Base.ExifImageWidth] == 80
    assert again.metadata.xmp == SQUARE.replace(b'Dimension="40"', b'Dimension="80"').replace(b'"6"', b'"1"')
    assert (again.metadata.dpi is not None) == ("DPI" in kept)
    if again.metadata.dpi is not None:
        assert again.metadata.dpi == pytest.approx((300, 300), abs=0.02)
    assert again.metadata.iptc == (IPTC if "IPTC" in kept and source == "JPEG" else None)
    wanted = {"PNG": ("Author", "Somebody"), "JPEG": ("Comment", "a comment")}[source]
    assert (wanted in again.metadata.text) == ("text" in kept or ("comment" in kept and source == "JPEG"))
    write_image(path, large, strip=True)
    bare = read_image(path)
    assert (bare.exif, bare.icc_profile, bare.metadata) == (None, None, Photo(RGB).metadata)


@every_format
def test_a_big_tiff_s_exif_is_readable_in_every_format(suffix: str, tmp_path: Path) -> None:
    make = (271, "s", 0, "Camera", True)
    photo = decode_image(tiff(RGB, photometric="rgb", bigtiff=True, extratags=[make], resolution=(300, 300)))
    write_image(tmp_path / f"a{suffix}", photo)
    with Image.open(tmp_path / f"a{suffix}") as image:
        assert image.getexif()[ExifTags.Base.Make] == "Camera"
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}").pixels.shape, RGB.shape)


def test_a_png_with_a_long_text_is_a_good_file() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Notes", "word " * 300_000, zip=True)
    photo = decode_image(encode(RGB, "PNG", pnginfo=text))
    np.testing.assert_array_equal(photo.pixels, RGB)
    assert any("texts" in note for note in photo.notes)


def test_of_several_pages_a_note_tells() -> None:
    pages = [Image.fromarray(page) for page in (RGB, RGB[::-1].copy())]
    for file_format in ("TIFF", "GIF", "PNG"):
        photo = decode_image(encode(pages[0], file_format, save_all=True, append_images=pages[1:]))
        assert photo.notes == ("the first of 2 pages or frames",)
    assert decode_image(encode(RGB)).notes == ()


@pytest.mark.parametrize(
    "options",
    [
        *({"file_format": name} for name in ("TIFF", "GIF", "PNG")),
        *({"file_format": "TIFF", "compression": name} for name in ("tiff_lzw", "tiff_adobe_deflate")),
        {"file_format": "WEBP", "lossless": True},
    ],
)
def test_any_page_can_be_read(options: dict[str, Any]) -> None:
    first, second = (Image.fromarray(page).quantize(16).convert("RGB") for page in (RGB, RGB[::-1].copy()))
    data = encode(first, save_all=True, append_images=[second], **options)
    for page, picture in ((1, first), (2, second)):
        photo = decode_image(data, page=page)
        np.testing.assert_array_equal(photo.pixels, np.asarray(picture))
        assert photo.notes == ()
    with pytest.raises(ImageError, match="no page 3"):
        decode_image(data, page=3)


def cmyk_profile() -> bytes:
    """A profile by which black alone shows."""
    header, lut = bytearray(128), b"mft1" + bytes(4) + bytes([4, 3, 2, 0])
    header[8:12], header[12:24], header[36:40] = b"\x02\x40\0\0", b"prtrCMYKLab ", b"acsp"
    header[68:80] = b"\0\0\xf6\xd6\0\1\0\0\0\0\xd3\x2d"
    lut += b"".join(int(65536 * (row == column)).to_bytes(4, "big") for row in range(3) for column in range(3))
    lut += bytes(range(256)) * 4 + bytes([255, 128, 128, 0, 128, 128]) * 8 + bytes(range(256)) * 3
    header[:4] = (128 + 16 + len(lut)).to_bytes(4, "big")
    table = b"\0\0\0\1A2B0" + (144).to_bytes(4, "big") + len(lut).to_bytes(4, "big")
    return bytes(header) + table + lut


@pytest.mark.parametrize("file_format", ["JPEG", "TIFF"])
def test_cmyk_is_converted_by_its_profile(file_format: str) -> None:
    cmyk = Image.fromarray(RGB).convert("CMYK")
    photo = decode_image(encode(cmyk, file_format, icc_profile=cmyk_profile()))
    assert photo.pixels.min() > 250  # Pillow's CMYK has no black
    assert photo.icc_profile is None
    damaged = decode_image(encode(cmyk, file_format, icc_profile=bytes(200)))
    assert damaged.pixels.std() > 10


@pytest.mark.parametrize("cut", [2, 40])
def test_a_jpeg_that_is_cut_short_is_filled_with_a_note_or_refused(cut: int) -> None:
    whole = encode(RGB, "JPEG")
    photo = decode_image(whole[:-cut], strict=False)
    assert any("cut short" in note for note in photo.notes)
    top = decode_image(whole).pixels[:8]
    np.testing.assert_array_equal(photo.pixels[:8], top)
    assert decode_image(whole, strict=False).notes == ()
    with pytest.raises(ImageError, match=r"cut short|truncated"):
        decode_image(whole[:-cut])


def test_what_follows_a_jpeg_does_not_make_it_cut_short() -> None:
    thumbnail = b"\xff\xe1\0\x0a" + b"\xff\xd8" + bytes(4) + b"\xff\xd9"
    whole = encode(RGB, "JPEG")
    assert decode_image(whole + bytes(200_000), strict=False).notes == ()
    with_thumbnail = whole[:2] + thumbnail + whole[2:]
    assert decode_image(with_thumbnail, strict=False).notes == ()
    assert len(decode_image(with_thumbnail[:-2], strict=False).notes) == 1


def test_a_jpeg_with_fill_bytes_before_its_segments_has_its_end() -> None:
    whole = encode(RGB, "JPEG")
    filled = whole[:2] + b"\xff\xff\xff" + whole[2:]
    np.testing.assert_array_equal(decode_image(filled).pixels, decode_image(whole).pixels)
    assert decode_image(filled, strict=False).notes == ()
    with pytest.raises(ImageError, match=r"cut short|truncated"):
        decode_image(filled[:-2])


def test_the_documentation_lists_the_formats() -> None:
    documented = (Path(__file__).parents[3] / "docs" / "restoring.md").read_text()
    rows = [line for line in documented.splitlines() if line.startswith(tuple(f"| {kind.name} |" for kind in EVERY))]
    assert rows == [
        "| {} | {} | {} | {} | {} | {} |".format(
            kind.name,
            " ".join(f"`{suffix}`" for suffix in kind.suffixes),
            *("yes" if flag else "no" for flag in (kind.written, kind.alpha, kind.deep)),
            ", ".join(kind.kept) or "-",
        )
        for kind in EVERY
    ]


def heif_file() -> bytes:
    return b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)


def test_heic_without_its_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(
        ImageError, match=r"^phone: HEIC or HEIF needs pillow_heif, which .*: pip install 'imagerestore\[heif\]'$"
    ):
        decode_image(heif_file(), "phone")


def test_heic_is_read() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(RGB)).save(buffer, quality=95)
    assert np.abs(decode_image(buffer.getvalue()).pixels.astype(int) - RGB).mean() < 6
    with pytest.raises(ImageError, match="damaged"):
        decode_image(heif_file())


def tiff_claiming(width: int, height: int, compression: int) -> bytes:
    """A TIFF of a few hundred bytes that claims to hold one strip of this size."""
    tags = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    layout = {256: width, 257: height, 258: (8, 8, 8), 259: compression, 262: 2, 277: 3, 278: height, 279: 100, 273: 0}
    for tag, value in layout.items():
        tags[tag] = value
    return b"II*\0\x08\0\0\0" + tags.tobytes(8) + bytes(100)


@pytest.mark.parametrize("compression", [1, 5, 7, 8, 32773])
def test_a_small_tiff_that_claims_to_be_huge_is_refused_at_once(compression: int) -> None:
    start = time.monotonic()
    with pytest.raises(ImageError, match=r"declares 24x6422545 pixels, more than a file of \d+ bytes can hold"):
        decode_image(tiff_claiming(24, 6422545, compression))
    assert time.monotonic() - start < 1


def test_well_compressed_pictures_are_read() -> None:
    buffer = io.BytesIO()
    Image.new("1", (2480, 3508), 1).save(buffer, "TIFF", compression="group4")
    assert decode_image(buffer.getvalue()).pixels.shape == (3508, 2480, 3)  # a blank fax is no such file
    for compression in ("tiff_adobe_deflate", "tiff_lzw", "packbits"):
        buffer = io.BytesIO()
        Image.new("RGB", (3000, 3000)).save(buffer, "TIFF", compression=compression)
        assert decode_image(buffer.getvalue()).pixels.shape == (3000, 3000, 3)
