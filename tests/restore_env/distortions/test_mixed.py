"""The mixed world: each kind of distortion does what its name says, and all follow from the seed."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest

from restore_env import ImageRestoreEnv
from restore_env.distortions.crop import Crop
from restore_env.distortions.device import distort_crops
from restore_env.distortions.mixed import ROWS, draw_distortion
from restore_env.distortions.photographic import (
    ChromaNoise,
    Defocus,
    Denoise,
    Grain,
    Photographic,
    Save,
    SensorNoise,
    Sharpen,
    Step,
)
from restore_env.distortions.protocol import OTHERS, Levels, distort_patch
from restore_env.distortions.transforms import MixedDistortion
from restore_env.images.arrays import to_float
from tests.support.toolkit import photographs, pixelwise_toolbox

(PHOTO,) = photographs(1, 200, 240)
GREY = np.full((128, 128, 3), 0.5, dtype=np.float32)
LUMA = np.array([0.299, 0.587, 0.114])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def sensor(**changes: Any) -> SensorNoise:
    return SensorNoise(**{"shot": 0.0, "read": 0.0, "red": 1.8, "blue": 1.5, "demosaicing": "edges", **changes})


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_seed_draws_the_same_patch_again(row: Any) -> None:
    for seed in range(8):
        one, two = (row.draw(rng(seed)) for _ in range(2))
        assert one == two
        assert json.loads(json.dumps(one.as_dict()))["kind"] == row.name
        patches = [drawn.patch(PHOTO, (40, 50, 63, 63), rng(seed + 1)) for drawn in (one, two)]
        assert patches[0].dtype == np.uint8
        assert patches[0].shape == (63, 63, 3)
        assert np.array_equal(*patches)


def test_all_saves_are_described() -> None:
    described = Photographic("resaved", (Save("webp", 40), Save("jpg", 20, 3))).as_dict()
    assert (described["save_kind"], described["save_quality"]) == ("webp", 40)
    assert (described["save2_quality"], described["save2_shift"]) == (20, 3)


def test_rows_come_up_by_their_weights() -> None:
    generator = rng()
    kinds = Counter(draw_distortion("mixed", generator).as_dict()["kind"] for _ in range(4000))
    total = sum(row.weight for row in ROWS)
    for row in ROWS:
        assert kinds[row.name] / 4000 == pytest.approx(row.weight / total, abs=0.025)


def test_a_row_is_a_severity_of_its_own() -> None:
    assert set(OTHERS) == {"mixed", "composite", *(row.name for row in ROWS)} - {"mixture", "single", "light"}
    for name in set(OTHERS) - {"mixed"}:
        assert draw_distortion(name, rng()).as_dict()["kind"] == name


@pytest.mark.parametrize("demosaicing", ["edges", "bilinear"])
@pytest.mark.parametrize("phase", range(4))
@pytest.mark.parametrize("oversampling", [1.0, 1.6])
def test_a_sensor_without_noise_shows_the_colours(demosaicing: str, phase: int, oversampling: float) -> None:
    flat = np.empty((64, 80, 3), dtype=np.float32)
    flat[:] = 0.7, 0.4, 0.2
    shown = sensor(demosaicing=demosaicing, phase=phase, oversampling=oversampling).apply(flat, rng())
    np.testing.assert_allclose(shown[4:-4, 4:-4], flat[4:-4, 4:-4], atol=0.003)


def test_sensor_noise_is_correlated_and_grows_with_light() -> None:
    noisy = [sensor(shot=0.01).apply(GREY * level, rng()) for level in (0.5, 1.5)]
    noise = [image - image.mean((0, 1)) for image in noisy]
    assert (noise[1] ** 2).mean() > 0.5 * (noise[0] ** 2).mean()
    green = noise[0][..., 1]
    neighbours = (green[:, 1:] * green[:, :-1]).mean() / (green**2).mean()
    assert neighbours > 0.15


@pytest.mark.parametrize("size", [0.0, 0.7, 1.5])
@pytest.mark.parametrize("colour", [0.0, 1.0])
def test_grain_has_its_strength_size_and_colour(size: float, colour: float) -> None:
    noise = Grain(20.0, size, colour).apply(GREY, rng()) - GREY
    assert noise.std() * 255 == pytest.approx(20, rel=0.15)
    assert np.allclose(noise[..., 0], noise[..., 2]) == (colour == 0)
    neighbours = (noise[:, 1:] * noise[:, :-1]).mean() / (noise**2).mean()
    assert (neighbours > 0.3) == (size > 0)


def test_chroma_noise_leaves_the_luma() -> None:
    noise = ChromaNoise(20.0, 1.0).apply(GREY, rng()) - GREY
    assert np.abs(noise @ LUMA).max() < 1e-4
    assert noise.std() * 255 > 5


def test_cameras_smooth_and_sharpen_and_lenses_blur() -> None:
    image = GREY + rng().normal(0, 0.03, GREY.shape).astype(np.float32)

    def detail(step: Step) -> float:
        return float(np.diff(step.apply(image, rng()), axis=1).std() / np.diff(image, axis=1).std())

    assert detail(Defocus(1.5)) < 0.4
    assert detail(Denoise(30.0)) < 0.7
    assert detail(Sharpen(1.0, 1.0)) > 1.4
    np.testing.assert_allclose(Defocus(2.2).apply(GREY, rng()), GREY, atol=1e-6)


@pytest.mark.parametrize("kind", ["jpg", "webp"])
def test_saving_loses_more_at_lower_quality_and_its_grid_can_be_shifted(kind: Any) -> None:
    image = to_float(PHOTO)
    errors = [np.abs(Save(kind, quality).apply(image, rng()) - image).mean() for quality in (95, 40, 5)]
    assert errors == sorted(errors)
    shifted = Save(kind, 5, 3).apply(image, rng())
    assert shifted.shape == image.shape
    assert not np.array_equal(shifted, Save(kind, 5).apply(image, rng()))


@pytest.mark.parametrize("top", [0, 37, 137])
def test_a_patch_has_the_photographs_surroundings_and_grid(top: int) -> None:
    """Without noise a patch is the window of the whole distorted photograph."""
    drawn = Photographic("defocus", (Defocus(1.3), Save("jpg", 30)))
    whole = drawn.patch(PHOTO, (0, 0, 200, 240), rng())
    patch = drawn.patch(PHOTO, (top, 61, 63, 63), rng())
    difference = np.abs(patch.astype(int) - whole[top : top + 63, 61:124])
    assert (difference > 2).mean() < 0.01  # OpenCV rounds otherwise at the ends of a region


def test_low_resolution_comes_first() -> None:
    patch = Photographic("clean").patch(PHOTO, (10, 12, 20, 24), rng(), factor=4)
    assert np.array_equal(patch, distort_patch(PHOTO, (10, 12, 20, 24), Levels(), rng(), 4))


def test_a_device_gets_the_hosts_patches_of_photographic_distortions() -> None:
    crop = Crop(PHOTO, "photo", 1.0, 1, 63, 20, 30)
    drawn = [draw_distortion("sensor", rng()), Levels(1.0, 10.0, 50), draw_distortion("grain", rng())]
    patches = distort_crops([crop] * 3, drawn, [5, 6, 7], "cpu").numpy()
    assert np.array_equal(patches[0], crop.distorted(drawn[0], rng(5)))
    assert np.array_equal(patches[2], crop.distorted(drawn[2], rng(7)))
    assert np.array_equal(patches[1], distort_crops([crop], drawn[1:2], [6], "cpu")[0].numpy())


def test_the_protocols_transform_does_not_take_the_mixed_world() -> None:
    with pytest.raises(ValueError, match="not of the protocol"):
        MixedDistortion("mixed")(image=PHOTO)


@pytest.mark.parametrize("draws", ["host", "device"])
def test_the_environment_plays_the_mixed_world(draws: str) -> None:
    env = ImageRestoreEnv(
        photographs(), severity="mixed", toolbox=pixelwise_toolbox(super_resolver=True), patch_size=48, draws=draws
    )
    kinds = set()
    for seed in range(40):
        env.reset(seed=seed)
        kinds.add(env.describe()["distortion"]["kind"])
    assert len(kinds) > 5
