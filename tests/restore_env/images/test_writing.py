"""Written photos: what they keep, whole or not at all, and where they cannot go."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from restore_env.images.decoding import ImageError, Photo, decode_image, read_image
from restore_env.images.encoding import WRITABLE, check_writable, write_image
from restore_env.images.files import write_atomically
from restore_env.images.formats import WRITTEN
from tests.support.image_files import GREY, RGB, encode, exif_of

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
    assert loss.max() == 0 if WRITTEN[suffix.lower()].name != "JPEG" else loss.mean() < 4
    assert again.icc_profile == SRGB
    with Image.open(path) as image:
        exif = image.getexif()
        assert exif[ExifTags.Base.Make] == "Camera"
        assert exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime] == 0.5
        assert exif.get(ExifTags.Base.Orientation, 1) == 1


def test_a_profile_that_does_not_describe_the_pixels_is_dropped(tmp_path: Path) -> None:
    grey_profile, cmyk_profile = (SRGB[:16] + space + SRGB[20:] for space in (b"GRAY", b"CMYK"))
    cmyk = Image.fromarray(RGB).convert("CMYK")
    assert decode_image(encode(cmyk, "JPEG", icc_profile=cmyk_profile)).icc_profile is None
    assert decode_image(encode(GREY, "PNG", icc_profile=SRGB)).icc_profile is None
    grey = decode_image(encode(GREY, "PNG", icc_profile=grey_profile))
    assert grey.icc_profile == grey_profile
    for suffix, kept in ((".jpg", grey_profile), (".tif", grey_profile), (".webp", None)):  # WebP is RGB
        write_image(tmp_path / f"grey{suffix}", grey)
        with Image.open(tmp_path / f"grey{suffix}") as image:
            assert image.info.get("icc_profile") == kept


def refuse(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


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


def test_write_atomically_replaces_or_leaves_the_file_and_heeds_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ("long" * 60)  # a temporary name must not be longer than what is allowed
    path.write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_atomically(path, b"new")
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == [b"old"]
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


@pytest.mark.parametrize(("suffix", "longest"), [(".webp", 16383), (".jpg", 65500)])
def test_too_large_for_the_format(suffix: str, longest: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"panorama{suffix}"
    with pytest.raises(ImageError, match=rf"panorama{suffix}: {longest + 1}x2 is too large for .* {longest} pixels"):
        write_image(path, Photo(np.zeros((2, longest + 1, 3), np.uint8)))
    assert list(tmp_path.iterdir()) == []
    write_image(path, Photo(np.zeros((2, longest, 3), np.uint8)))
    assert read_image(path).pixels.shape == (2, longest, 3)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "exif", "reason"),
    [
        ("missing/photo.png", None, r"cannot be written \("),
        ("folder.png", None, r"cannot be written \("),
        ("photo.jpg", b"Exif\0\0" + bytes(70_000), r"cannot be written as JPEG \(EXIF data is too long\)"),
    ],
)
def test_what_cannot_be_written(name: str, exif: bytes | None, reason: str, tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ImageError, match=f"{name}: {reason}"):
        write_image(tmp_path / name, Photo(RGB, exif=exif))
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]


@pytest.mark.parametrize("suffix", WRITABLE)
def test_photos_without_profile_and_exif(suffix: str, tmp_path: Path) -> None:
    write_image(tmp_path / f"plain{suffix}", Photo(RGB))
    again = read_image(tmp_path / f"plain{suffix}")
    assert (again.pixels.shape, again.icc_profile, again.exif) == (RGB.shape, None, None)
