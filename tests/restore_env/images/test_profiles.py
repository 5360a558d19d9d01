"""Colour profiles: which numbers tools get, what is written, and the colours that a viewer shows."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms

from agents.restoration.restorer import Restorer
from restore_env.images.arrays import Float, to_float
from restore_env.images.decoding import Photo, decode_image, read_image
from restore_env.images.encoding import write_image
from restore_env.images.profiles import colour_space
from restore_env.images.samples import with_result, working_image
from restore_env.toolbox import FunctionTool, Toolbox
from tests.support.image_files import (
    GREY,
    PROFILES,
    RGB,
    SRGB,
    SRGB_CURVE,
    curve,
    deep_png,
    encode,
    profile,
    to16,
    with_chunk,
)

every_profile = pytest.mark.parametrize("name", PROFILES)


def grid() -> Float:
    """Colours from all over the cube."""
    steps = np.linspace(0, 1, 12, dtype=np.float32)
    return np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(36, 48, 3)


def shown(data: bytes) -> npt.NDArray[np.uint8]:
    """What a viewer shows of a file on an sRGB screen."""
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        given = image.info.get("icc_profile")
        if given is None:
            return np.asarray(image.convert("RGB"))
        converted = ImageCms.profileToProfile(
            image,
            ImageCms.ImageCmsProfile(io.BytesIO(given)),
            ImageCms.createProfile("sRGB"),
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            "RGB",
        )
        assert converted is not None
        return np.asarray(converted)


@every_profile
def test_colours_are_converted_as_littlecms_does(name: str) -> None:
    space = colour_space(PROFILES[name])
    assert space is not None
    pixels = np.rint(grid() * 255).astype(np.uint8)
    srgb = space.to_srgb(to_float(pixels)).clip(0, 1) * 255
    assert np.abs(shown(encode(pixels, icc_profile=PROFILES[name])) - srgb).max() <= 1.51
    greys = space.to_srgb(np.repeat(np.linspace(0, 1, 99, dtype=np.float32)[:, None], 3, axis=1))
    np.testing.assert_allclose(greys[:, 0], greys[:, 2], atol=1e-6)


@every_profile
def test_tones_and_back(name: str) -> None:
    space = colour_space(PROFILES[name])
    assert space is not None
    np.testing.assert_allclose(space.with_own_tones(space.with_srgb_tones(grid())), grid(), atol=2e-5)


def test_spaces_that_are_not_known_and_srgb_itself_are_left_alone() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    falling = profile(curve(0.0, 0.6, 0.4, 1.0), SRGB)
    tables = PROFILES["linear"].replace(b"rTRC", b"A2B0")
    for given in (None, b"", b"profile", srgb, profile(SRGB_CURVE, SRGB), lab, falling, tables, srgb[:200], bytes(400)):
        assert colour_space(given) is None


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "damaged",
    [
        profile(curve(2.4, 0, 0.1, 0, kind=2), SRGB),
        profile(curve(-2.0, 1, 0, kind=1), SRGB),
        profile(curve(30000.0, 30000, 0, kind=1), SRGB),
        profile(curve(1.0), np.zeros((3, 3))),
    ],
    ids=["level", "falling from infinity", "too steep", "black"],
)
def test_damaged_profiles_are_left_alone_without_a_word(damaged: bytes) -> None:
    assert colour_space(damaged) is None


@pytest.mark.parametrize(
    ("tone", "kept"), [(curve(g), 1.7 <= g <= 2.9) for g in (1.0, 1.4, 1.8, 2.2, 2.6, 3.2)] + [(SRGB_CURVE, True)]
)
def test_tools_get_the_numbers_unless_their_tones_are_far_from_srgb(tone: bytes, kept: bool) -> None:
    photo = Photo(RGB, icc_profile=profile(tone, np.array(SRGB)[[1, 0, 2]]))
    image = working_image(photo)[0].permute(1, 2, 0).numpy()
    assert np.array_equal(image, RGB / np.float32(255)) == kept
    if not kept:
        gamma = {curve(1.0): 1.0, curve(1.4): 1.4, curve(3.2): 3.2}[tone]
        linear = (RGB / 255.0) ** (round(gamma * 256) / 256)
        expected = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
        np.testing.assert_allclose(image, expected, atol=1e-5)
    np.testing.assert_array_equal(with_result(photo, working_image(photo), 1).pixels, RGB)


def linear_files() -> dict[str, bytes]:
    """Files of 8 and 16 bits with linear profiles, of RGB and of grey."""
    grey, rgb = profile(curve(1.0)), PROFILES["linear"]
    with io.BytesIO(encode(RGB, icc_profile=rgb)) as file:
        chunk = next(chunk for chunk in file.getvalue().split(b"iCCP")[1:])
    deep = with_chunk(deep_png(to16(RGB)), b"iCCP", chunk[: chunk.index(b"IDAT") - 8])
    return {"8": encode(RGB, icc_profile=rgb), "grey": encode(GREY, icc_profile=grey), "16": deep}


@pytest.mark.parametrize("kind", ["8", "grey", "16"])
def test_a_linear_photo_is_restored_with_srgbs_tones_and_written_in_its_own(kind: str) -> None:
    photo = decode_image(linear_files()[kind])
    assert photo.icc_profile is not None
    lighter = Toolbox([FunctionTool("lighter", lambda images: images + 0.1, receptive_radius=0)])
    result = Restorer(lighter, ["lighter"]).restore(photo).photo
    assert result.icc_profile == photo.icc_profile
    space = colour_space(photo.icc_profile)
    assert space is not None
    before, after = (space.with_srgb_tones(to_float(each.pixels)) for each in (photo, result))
    bright = (before > 0.4) & (before < 0.85)
    np.testing.assert_allclose(after[bright], before[bright] + 0.1, atol=0.01)
    assert result.grey == photo.grey
    nothing = Restorer(lighter, []).restore(photo).photo
    np.testing.assert_array_equal(nothing.colours, photo.colours)


@every_profile
@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_without_its_profile_a_photo_shows_the_same(name: str, suffix: str, tmp_path: Path) -> None:
    data = encode(RGB // 2 + 64, icc_profile=PROFILES[name])
    for strip in (False, True):
        path = tmp_path / f"{strip}{suffix}"
        write_image(path, decode_image(data), strip=strip)
        assert (read_image(path).icc_profile is None) == strip
        assert np.abs(shown(path.read_bytes()).astype(int) - shown(data)).max() <= 1


def test_a_grey_profile_shows_the_same_where_a_format_has_no_grey(tmp_path: Path) -> None:
    photo = decode_image(encode(GREY, icc_profile=profile(curve(1.3))))
    assert photo.icc_profile is not None
    write_image(tmp_path / "a.webp", photo)
    expected = np.rint(np.clip(1.055 * (GREY / 255.0) ** (1.3 / 2.4) - 0.055, 0, 1) * 255)
    written = read_image(tmp_path / "a.webp").pixels[..., 0]
    bright = GREY > 20
    assert np.abs(written[bright] - expected[bright]).max() <= 1
