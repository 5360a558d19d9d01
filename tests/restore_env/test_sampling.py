from __future__ import annotations

import importlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from restore_env import sampling as starts
from restore_env.distortions.protocol import SCALES, SEVERITIES, Levels, distort
from restore_env.distortions.transforms import ProtocolBlur, ProtocolJpeg, ProtocolNoise
from restore_env.images.arrays import Pixels
from restore_env.images.decoding import ImageError
from restore_env.images.sources import ImageSource, PairSource, open_images
from restore_env.sampling import EpisodeStart, StartSampler, own_pair

A: Any = importlib.import_module(
    "albumentations"
)  # only now: restore_env.distortions.transforms keeps it off the network


def picture(height: int, width: int, seed: int = 0) -> Pixels:
    """Smooth random colours: a patch of it is found nowhere else in it."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def source() -> ImageSource:
    opened = open_images([picture(330, 400, 1), picture(260, 256, 2), picture(90, 70, 3)])
    assert isinstance(opened, ImageSource)
    return opened


def pair_source(*pairs: tuple[Pixels, Pixels]) -> PairSource:
    opened = open_images(list(pairs))
    assert isinstance(opened, PairSource)
    return opened


def assert_equal(one: EpisodeStart, other: EpisodeStart) -> None:
    np.testing.assert_array_equal(one.distorted, other.distorted)
    np.testing.assert_array_equal(one.target, other.target)
    assert (one.factor, one.image, one.seed, one.distortion) == (
        other.factor,
        other.image,
        other.seed,
        other.distortion,
    )


def assert_cut_from(source: ImageSource, start: EpisodeStart) -> None:
    """The target lies in its image where the start says."""
    index = [source.identity(i) for i in range(len(source))].index(start.image)
    image = source.pixels(index, start.distortion["scale"])
    top, left, (height, width) = start.distortion["top"], start.distortion["left"], start.target.shape[:2]
    np.testing.assert_array_equal(start.target, image[top : top + height, left : left + width])


def protocol_compose() -> Any:
    return A.Compose([ProtocolBlur((0.5, 5)), ProtocolNoise((5, 50)), ProtocolJpeg((10, 60))])


# The protocol's distortions


@pytest.mark.parametrize("distortion", [*SEVERITIES, "compose"])
@given(seed=st.integers(0, 2**53))
@settings(max_examples=15, deadline=None)
def test_the_same_seed_draws_the_same_start(source: ImageSource, distortion: str, seed: int) -> None:
    def sampler() -> StartSampler:
        chosen = protocol_compose() if distortion == "compose" else distortion
        return StartSampler(source, chosen, patch_size=31, factors=(1, 4))

    one = sampler()
    first = one.draw(seed)
    one.draw(seed + 1)  # what was drawn before does not matter
    assert_equal(one.draw(seed), first)
    assert_equal(sampler().draw(seed), first)


def test_different_seeds_draw_different_starts(source: ImageSource) -> None:
    sampler = StartSampler(source, factors=(1, 4))
    drawn = [sampler.draw(seed) for seed in range(60)]
    assert len({start.distorted.tobytes() for start in drawn}) == 60
    assert {start.factor for start in drawn} == {1, 4}
    assert {start.image for start in drawn} == {source.identity(i) for i in range(3)}


@given(seed=st.integers(0, 2**53), factor=st.sampled_from([1, 4]), patch_size=st.sampled_from([16, 33, 63]))
@settings(max_examples=40, deadline=None)
def test_a_start_has_the_stated_factor_place_and_sizes(
    source: ImageSource, seed: int, factor: int, patch_size: int
) -> None:
    start = StartSampler(source, "mild", patch_size=patch_size, factors=(factor,)).draw(seed)
    assert start.seed == seed
    assert start.factor == factor
    assert start.distorted.shape == (patch_size, patch_size, 3)
    assert start.target.shape == (patch_size * factor, patch_size * factor, 3)
    assert start.distorted.dtype == start.target.dtype == np.uint8
    assert start.distortion["scale"] in SCALES
    assert start.distortion["top"] % factor == start.distortion["left"] % factor == 0
    assert_cut_from(source, start)
    json.dumps(start.distortion)  # plain numbers and strings


@pytest.mark.parametrize("factor", [1, 4])
def test_the_patch_is_cut_from_the_distorted_image(
    source: ImageSource, factor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = Levels(blur_sigma=1.3, noise_sigma=0.0, jpeg_quality=30)  # noise would differ: it is drawn for the patch
    monkeypatch.setattr(starts, "draw_distortion", lambda severity, rng: levels)
    sampler = StartSampler(source, factors=(factor,))
    for seed in range(10):
        start = sampler.draw(seed)
        index = [source.identity(i) for i in range(len(source))].index(start.image)
        whole = distort(source.pixels(index, start.distortion["scale"]), levels, np.random.default_rng(0), factor)
        top, left = start.distortion["top"] // factor, start.distortion["left"] // factor
        np.testing.assert_array_equal(start.distorted, whole[top : top + 63, left : left + 63])


def test_every_image_scale_and_place_with_room_comes_up() -> None:
    opened = open_images([picture(30, 31), picture(20, 20, 1), picture(9, 40, 2)])
    assert isinstance(opened, ImageSource)
    sampler = StartSampler(opened, patch_size=10)
    drawn = [sampler.draw(seed) for seed in range(400)]
    counts = Counter((opened.identity(0) == start.image, start.distortion["scale"]) for start in drawn)
    # 30x31 has room at all scales, 20x20 (13x13 at 2/3, 7x7 at 1/3) at two, 9x40 at none
    assert set(counts) == {(True, 1.0), (True, 2 / 3), (True, 1 / 3), (False, 1.0), (False, 2 / 3)}
    assert min(counts.values()) > 400 / 5 / 2  # equally likely
    places = {
        start.distortion["top"]
        for start in drawn
        if (start.image, start.distortion["scale"]) == (opened.identity(1), 1.0)
    }
    assert places == set(range(11))


def test_no_image_with_room_is_an_error(source: ImageSource) -> None:
    assert StartSampler(source, patch_size=330).draw(0).distorted.shape == (330, 330, 3)
    with pytest.raises(ImageError, match=r"no image is as large as a patch of 331x331 pixels, which .* 1 needs"):
        StartSampler(source, patch_size=331)
    with pytest.raises(ImageError, match=r"no image is as large as a patch of 332x332 pixels, which .* 4 needs"):
        StartSampler(source, patch_size=83, factors=(1, 4))


# A user's distortion


@pytest.mark.parametrize("factor", [1, 4])
def test_a_users_compose(source: ImageSource, factor: int) -> None:
    sampler = StartSampler(source, A.Compose([A.InvertImg(p=1)]), patch_size=40, factors=(factor,))
    for seed in range(10):
        start = sampler.draw(seed)
        assert start.distorted.shape == (40, 40, 3)
        assert_cut_from(source, start)
        small = start.target.reshape(40, factor, 40, factor, 3).mean(axis=(1, 3))
        assert np.abs(255.0 - start.distorted - small).max() <= (0 if factor == 1 else 12)
        assert [name for name, _ in json.loads(start.distortion["transforms"])] == ["InvertImg"]


def test_a_compose_gets_the_context_of_its_patch() -> None:
    """With a blur alone the patch equals the blurred image, borders included: 32 pixels of context are enough."""
    opened = open_images([picture(200, 220)])
    assert isinstance(opened, ImageSource)
    sampler = StartSampler(opened, A.Compose([ProtocolBlur((5, 5))]), patch_size=20)
    for seed in range(10):
        start = sampler.draw(seed)
        top, left = start.distortion["top"], start.distortion["left"]
        whole = ProtocolBlur((5, 5))(image=np.asarray(opened.pixels(0, start.distortion["scale"])))["image"]
        assert np.abs(start.distorted - whole[top : top + 20, left : left + 20].astype(int)).max() <= 1


def test_a_users_compose_is_not_changed(source: ImageSource) -> None:
    compose, twin = (A.Compose([ProtocolNoise((5, 50))], seed=3) for _ in range(2))
    sampler = StartSampler(source, compose)
    for seed in range(3):
        sampler.draw(seed)
    assert not compose.save_applied_params
    image = picture(30, 30)
    for _ in range(3):
        np.testing.assert_array_equal(compose(image=image)["image"], twin(image=image)["image"])


def test_a_compose_must_keep_size_and_type(source: ImageSource) -> None:
    with pytest.raises(ValueError, match=r"the distortion must return uint8 of shape .* got uint8 of \(50, 50, 3\)"):
        StartSampler(source, A.Compose([A.CenterCrop(50, 50)])).draw(0)
    with pytest.raises(ValueError, match="got float32"):
        StartSampler(source, A.Compose([A.ToFloat()])).draw(0)


# Pairs


def test_pairs_are_cut_at_one_place() -> None:
    clean = picture(160, 200)
    low = clean.reshape(40, 4, 50, 4, 3).mean(axis=(1, 3)).astype(np.uint8)
    pairs = pair_source((255 - clean, clean), (low, clean))
    sampler = StartSampler(pairs, patch_size=21)
    assert sampler.factors == (1, 4)
    drawn = [sampler.draw(seed) for seed in range(40)]
    assert {start.factor for start in drawn} == {1, 4}
    for start in drawn:
        top, left, size = start.distortion["top"], start.distortion["left"], 21 * start.factor
        np.testing.assert_array_equal(start.target, clean[top : top + size, left : left + size])
        if start.factor == 1:
            np.testing.assert_array_equal(start.distorted, 255 - start.target)
        else:
            small = start.target.reshape(21, 4, 21, 4, 3).mean(axis=(1, 3)).astype(np.uint8)
            np.testing.assert_array_equal(start.distorted, small)
        assert_equal(sampler.draw(start.seed), start)
    assert len({(start.image, start.distortion["top"], start.distortion["left"]) for start in drawn}) > 30


def test_a_users_pair(tmp_path: Path) -> None:
    clean, low = picture(40, 80), picture(10, 20)
    Image.fromarray(low).save(tmp_path / "low.png")
    start = own_pair(tmp_path / "low.png", clean / 255)
    assert (start.factor, start.image, start.seed) == (4, str(tmp_path / "low.png"), -1)
    np.testing.assert_array_equal(start.distorted, low)
    assert start.target.dtype == np.float32  # keeps its precision
    np.testing.assert_allclose(start.target, clean / 255, atol=1e-7)

    with pytest.raises(ImageError, match="do not fit together"):
        own_pair(low, picture(41, 80))
    with pytest.raises(ImageError, match="distorted: float values must lie in"):
        own_pair(low * 1.0, clean)
