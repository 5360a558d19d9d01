from __future__ import annotations

import importlib
import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from restore_env.distortions import protocol as distortions
from restore_env.distortions.protocol import Levels
from restore_env.distortions.transforms import (
    BicubicDownscale,
    MixedDistortion,
    ProtocolBlur,
    ProtocolJpeg,
    ProtocolNoise,
)

Pixels = npt.NDArray[Any]

A: Any = importlib.import_module("albumentations")  # after restore_env's transforms, which keep it off the network


@pytest.fixture(scope="module")
def photo() -> Pixels:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (9, 13, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=0).repeat(8, axis=1)  # flat squares with hard edges, 72x104


def as_float(image: Pixels) -> Pixels:
    return np.asarray(image.astype(np.float32) * np.float32(1 / 255))


EACH = [ProtocolBlur, ProtocolNoise, ProtocolJpeg, BicubicDownscale, MixedDistortion]


@pytest.mark.parametrize(
    ("transform", "function"),
    [
        (ProtocolBlur((2.5, 2.5)), lambda image, rng: distortions.gaussian_blur(image, 2.5)),
        (ProtocolNoise((30, 30)), lambda image, rng: distortions.gaussian_noise(image, 30, rng)),
        (ProtocolJpeg((20, 20)), lambda image, rng: as_float(distortions.jpeg(distortions.quantize(image), 20))),
        (BicubicDownscale(4), lambda image, rng: distortions.downscale(image, 4)),
    ],
)
def test_a_transform_does_what_its_function_does(transform: Any, function: Any, photo: Pixels) -> None:
    for image in (photo, as_float(photo)):
        result = transform(image=image)["image"]
        rng = np.random.default_rng(transform.get_applied_params().get("noise_seed", 0))
        expected = function(as_float(photo), rng)
        np.testing.assert_array_equal(result, distortions.quantize(expected) if image.dtype == np.uint8 else expected)


@pytest.mark.parametrize("factor", [1, 4])
def test_the_mixture_is_that_of_the_function(photo: Pixels, factor: int) -> None:
    mixed = MixedDistortion("severe", factor=factor)
    result = mixed(image=photo)["image"]
    drawn = mixed.get_applied_params()
    levels = Levels(drawn["blur_sigma"], drawn["noise_sigma"], drawn["jpeg_quality"])
    rng = np.random.default_rng(drawn["noise_seed"])
    np.testing.assert_array_equal(result, distortions.distort(photo, levels, rng, factor))


@pytest.mark.parametrize(
    ("transform", "name", "low", "high", "different"),
    [
        (ProtocolBlur((1, 2)), "sigma", 1, 2, 50),
        (ProtocolNoise((10, 20)), "sigma", 10, 20, 50),
        (ProtocolJpeg((40, 42)), "quality", 40, 42, 3),
    ],
)
def test_strengths_stay_in_their_ranges_and_vary(
    transform: Any, name: str, low: float, high: float, different: int
) -> None:
    drawn = [transform.get_params()[name] for _ in range(50)]
    assert low <= min(drawn) <= max(drawn) <= high
    assert len(set(drawn)) == different


def test_strengths_of_one_seeded_compose_are_independent(photo: Pixels) -> None:
    compose = A.Compose([ProtocolBlur((0, 1)), ProtocolNoise((0, 1))], save_applied_params=True)
    drawn = []
    for seed in range(60):
        compose.set_random_seed(seed)
        drawn.append([params["sigma"] for _, params in compose(image=photo[:8, :8])["applied_transforms"]])
    assert abs(np.corrcoef(np.array(drawn).T)[0, 1]) < 0.4


@pytest.mark.parametrize(
    "transforms",
    [[ProtocolBlur(), ProtocolNoise(), ProtocolJpeg()], [MixedDistortion("severe")]],
    ids=["single", "mixed"],
)
def test_replay_repeats_the_distortion_and_its_noise(transforms: list[Any], photo: Pixels) -> None:
    result = A.ReplayCompose(transforms)(image=photo)
    record = json.loads(json.dumps(result["replay"]))
    np.testing.assert_array_equal(A.ReplayCompose.replay(record, image=photo)["image"], result["image"])

    flipped = A.ReplayCompose.replay(record, image=photo[::-1])["image"]
    assert not np.array_equal(flipped[::-1], result["image"])  # the same noise on another image


@pytest.mark.parametrize(
    "transform",
    [
        ProtocolBlur((1.5, 2.5)),
        ProtocolNoise((5, 25), p=0.5),
        ProtocolJpeg((30, 60)),
        BicubicDownscale(2),
        MixedDistortion("severe", factor=4, p=0.25),
    ],
    ids=lambda transform: type(transform).__name__,
)
def test_serialisation_round_trip(transform: Any, photo: Pixels) -> None:
    saved = json.loads(json.dumps(A.to_dict(A.Compose([transform]))))
    loaded = A.from_dict(saved)
    assert repr(loaded[0]) == repr(transform)
    assert json.loads(json.dumps(A.to_dict(loaded))) == saved
    for twin in (loaded[0], transform):
        twin.set_random_seed(11)
    np.testing.assert_array_equal(loaded[0](image=photo)["image"], transform(image=photo)["image"])


@pytest.mark.parametrize("transform", EACH)
def test_the_input_is_left_as_it_was_and_its_type_kept(transform: Any, photo: Pixels) -> None:
    for image in (photo, as_float(photo)) if transform is not MixedDistortion else (photo,):
        before = image.copy()
        assert transform()(image=image)["image"].dtype == image.dtype
        np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("transform", EACH)
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((16, 16), np.uint8), ((16, 16, 1), np.uint8), ((16, 16, 4), np.uint8), ((16, 16, 3), np.float64)],
)
def test_other_images_are_refused(transform: Any, shape: tuple[int, ...], dtype: Any) -> None:
    with pytest.raises(ValueError, match=rf"{transform.__name__} takes RGB images"):
        transform()(image=np.zeros(shape, dtype))


@pytest.mark.parametrize(
    ("transform", "arguments", "complaint"),
    [
        (ProtocolBlur, {"sigma_range": (-1, 2)}, "greater than or equal to 0"),
        (ProtocolBlur, {"sigma_range": (2, 1)}, "range .* is empty"),
        (ProtocolBlur, {"sigma_range": (0, float("inf"))}, "finite"),
        (ProtocolNoise, {"sigma_range": ("0", "5")}, "number"),
        (ProtocolJpeg, {"quality_range": (0, 50)}, "greater than or equal to 1"),
        (ProtocolJpeg, {"quality_range": (50, 101)}, "less than or equal to 100"),
        (ProtocolJpeg, {"quality_range": (10.5, 40)}, "integer"),
        (BicubicDownscale, {"factor": 0}, "greater than or equal to 1"),
        (BicubicDownscale, {"factor": 2.0}, "integer"),
        (MixedDistortion, {"severity": "extreme"}, "mild, moderate, severe"),
        (MixedDistortion, {"factor": 0}, "greater than or equal to 1"),
    ],
)
def test_wrong_arguments_are_refused(transform: Any, arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        transform(**arguments)
