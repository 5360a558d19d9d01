from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
import pytest

from restore_env.distortions.protocol import downscale, quantize
from restore_env.images.arrays import Pixels
from sr_models.training.blind_distortion import (
    DISTORTIONS,
    PASSES,
    bicubic,
    blind,
    gaussian_kernel,
    random_blur,
    random_noise,
    random_resize,
    sinc_kernel,
)
from sr_models.training.blind_transforms import BlindDistortion
from tests.support.toolkit import photographs

A: Any = importlib.import_module("albumentations")  # only now: restore_env.distortions.transforms keeps it offline


@pytest.fixture(scope="module")
def photo() -> Pixels:
    return photographs(1, 96, 128)[0]


@pytest.fixture(scope="module")
def noisy(photo: Pixels) -> Pixels:
    return np.random.default_rng(1).integers(0, 256, photo.shape, dtype=np.uint8)


def test_bicubic_is_the_protocols_downscaling_and_draws_nothing(noisy: Pixels) -> None:
    rng = np.random.default_rng(0)
    expected = quantize(downscale(noisy.astype(np.float32) * np.float32(1 / 255), 4))
    np.testing.assert_array_equal(bicubic(noisy, rng), expected)
    assert rng.random() == np.random.default_rng(0).random()


@pytest.mark.parametrize("name", DISTORTIONS)
class TestEvery:
    @pytest.mark.parametrize("shape", [(96, 128), (4, 4), (4, 64), (16, 8)])
    def test_is_a_quarter_of_the_size_and_reproducible(self, name: str, shape: tuple[int, int], photo: Pixels) -> None:
        clean = photo[: shape[0], : shape[1]]
        before = clean.copy()
        for seed in range(15):
            one, two = (DISTORTIONS[name](clean, np.random.default_rng(seed)) for _ in range(2))
            assert one.shape == (shape[0] // 4, shape[1] // 4, 3)
            assert one.dtype == np.uint8
            np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(clean, before)

    def test_refuses_what_is_no_image(self, name: str, photo: Pixels) -> None:
        rng = np.random.default_rng(0)
        with pytest.raises(ValueError, match="an image of 127x96 cannot be shrunk by 4"):
            DISTORTIONS[name](photo[:, :127], rng)
        wrong: list[Any] = [photo[..., 0], photo.astype(np.float32), photo[None], photo[:0]]
        for image in wrong:
            with pytest.raises(ValueError, match="expected a uint8 RGB image"):
                DISTORTIONS[name](image, rng)


class TestBlind:
    def test_differs_from_draw_to_draw_and_from_bicubic(self, photo: Pixels) -> None:
        rng = np.random.default_rng(0)
        drawn = [blind(photo, rng).astype(float) for _ in range(6)]
        for one, two in zip(drawn, [*drawn[1:], bicubic(photo).astype(float)], strict=True):
            assert np.abs(one - two).mean() > 0.5

    def test_shifts_nothing(self, photo: Pixels) -> None:
        rng = np.random.default_rng(0)
        mean = np.mean([blind(photo, rng).astype(float) for _ in range(60)], axis=0)
        target = bicubic(photo).astype(float)

        def error(down: int, right: int) -> float:
            return float(np.abs(np.roll(mean, (down, right), (0, 1)) - target)[2:-2, 2:-2].mean())

        assert all(error(*shift) > error(0, 0) for shift in ((1, 0), (-1, 0), (0, 1), (0, -1)))


class TestParts:
    def test_kernels_sum_to_one_and_are_symmetric(self) -> None:
        kernels = [
            gaussian_kernel(21, 2.5, 0.7, 0.4),
            gaussian_kernel(7, 1, 1, 0, 2.0, "plateau"),
            sinc_kernel(13, 1.2),
        ]
        for kernel in kernels:
            assert kernel.sum() == pytest.approx(1, abs=1e-5)
            np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-7)
        assert kernels[2].min() < 0

    def test_a_kernel_has_its_sigma_along_its_angle(self) -> None:
        kernel = gaussian_kernel(21, 3.0, 0.5, 0.0)
        assert kernel[10, 15] > 100 * kernel[15, 10]
        np.testing.assert_allclose(gaussian_kernel(21, 3.0, 0.5, math.pi / 2), kernel.T, atol=1e-7)
        row = gaussian_kernel(21, 2.0, 2.0, 1.0).sum(0)
        assert math.sqrt((row * (np.arange(21) - 10.0) ** 2).sum()) == pytest.approx(2, abs=0.01)

    def test_grey_noise_and_colour_noise_both_come(self) -> None:
        flat = np.full((32, 32, 3), 0.5, np.float32)
        rng = np.random.default_rng(0)
        noises = [random_noise(flat, PASSES[0], rng) - flat for _ in range(60)]
        grey = [np.allclose(noise[..., 0], noise[..., 2], atol=1e-6) for noise in noises]
        assert 0.15 < np.mean(grey) < 0.65
        assert all(0 < noise.std() * 255 <= 40 for noise in noises)

    def test_sizes_lie_in_bounds(self) -> None:
        flat = np.full((40, 60, 3), 0.5, np.float32)
        rng = np.random.default_rng(0)
        heights = [random_resize(flat, PASSES[0], rng).shape[0] for _ in range(100)]
        assert 40 * 0.15 <= min(heights) < 40 < max(heights) <= 40 * 1.5
        heights = [random_resize(flat, PASSES[1], rng, base=(10, 15)).shape[0] for _ in range(100)]
        assert 3 <= min(heights) < 10 < max(heights) <= 12

    def test_blurs_keep_a_flat_image(self) -> None:
        flat = np.full((24, 24, 3), 0.5, np.float32)
        rng = np.random.default_rng(0)
        for _ in range(50):
            np.testing.assert_allclose(random_blur(flat, PASSES[0], rng), 0.5, atol=1e-5)


def test_the_transform_equals_the_function_replays_and_serializes(photo: Pixels) -> None:
    result = A.ReplayCompose([BlindDistortion()])(image=photo)
    np.testing.assert_array_equal(A.ReplayCompose.replay(result["replay"], image=photo)["image"], result["image"])
    seed = result["replay"]["transforms"][0]["params"]["distortion_seed"]
    np.testing.assert_array_equal(result["image"], blind(photo, np.random.default_rng(seed)))
    assert isinstance(A.from_dict(A.to_dict(A.Compose([BlindDistortion()])))[0], BlindDistortion)
