"""Blur, shrinking, noise and JPEG: each by itself, together, and of a patch as of the whole image."""

from __future__ import annotations

import importlib
import io
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from restore_env.distortions.protocol import (
    Levels,
    distort,
    distort_patch,
    downscale,
    gaussian_blur,
    gaussian_noise,
    jpeg,
    quantize,
)
from restore_env.images.arrays import Float, Pixels

ndimage: Any = importlib.import_module("scipy.ndimage")  # it comes with scikit-image; untyped
Double = npt.NDArray[np.float64]


def photo(height: int, width: int, seed: int = 0) -> Pixels:
    """A picture with smooth shades, hard edges and texture, in colour."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    blocks = coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
    ramp = np.linspace(0, 60, width)[None, :, None] + np.linspace(0, 60, height)[:, None, None]
    picture = blocks * 0.6 + ramp + rng.normal(0, 8, (height, width, 3))
    return np.asarray(np.clip(picture, 0, 255), dtype=np.uint8)


def as_float(image: Pixels) -> Float:
    floats: Float = image.astype(np.float32) * np.float32(1 / 255)
    return floats


# a patch equals the same window of the whole image


@st.composite
def windows(draw: st.DrawFn) -> tuple[tuple[int, int], tuple[int, int, int, int], int]:
    """An image's size, a window of the distorted image, and the factor between them; borders come up often.

    Windows are three pixels wide or more: in strips of up to four pixels libjpeg upsamples the colours differently.
    """
    factor = draw(st.sampled_from([1, 4]))
    sides, spans = [], []
    for _ in range(2):
        limit = draw(st.integers(6, 90 if factor == 1 else 48))
        length = draw(st.integers(3, min(limit, 40)))
        spans.append((draw(st.sampled_from([0, limit - length]) | st.integers(0, limit - length)), length))
        sides.append(limit * factor + draw(st.integers(0, factor - 1)))
    (top, height), (left, width) = spans
    return (sides[0], sides[1]), (top, left, height, width), factor


level_sets = st.builds(
    Levels,
    blur_sigma=st.sampled_from([0.0, 5.0]) | st.floats(0.05, 5),
    noise_sigma=st.just(0.0),
    jpeg_quality=st.just(0) | st.integers(10, 100),
)


@given(windows(), level_sets, st.integers(0, 50))
@example(((63, 63), (0, 0, 63, 63), 1), Levels(5.0, 0.0, 10), 0)
@example(((255, 257), (0, 1, 63, 63), 4), Levels(5.0, 0.0, 10), 0)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_patch_equals_the_window_of_the_whole_image(
    case: tuple[tuple[int, int], tuple[int, int, int, int], int], levels: Levels, seed: int
) -> None:
    (height, width), window, factor = case
    image = photo(height, width, seed)
    rng = np.random.default_rng(0)
    whole = distort(image, levels, rng, factor)
    assert whole.shape == (height // factor, width // factor, 3)
    top, left, rows, columns = window
    patch = distort_patch(image, window, levels, rng, factor)
    assert patch.flags.c_contiguous
    np.testing.assert_array_equal(patch, whole[top : top + rows, left : left + columns])


@pytest.mark.parametrize("window", [(-1, 0, 8, 8), (0, 13, 8, 8), (0, 0, 21, 8), (0, 0, 0, 8)])
def test_a_window_outside_the_image_is_an_error(window: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="does not lie inside"):
        distort_patch(photo(20, 20), window, Levels(), np.random.default_rng(0))


# the mixed distortion


@pytest.mark.parametrize("factor", [1, 4])
def test_distort_is_blur_then_downscaling_then_noise_then_jpeg(factor: int) -> None:
    image, levels = photo(64, 96), Levels(1.7, 12.0, 35)
    small = downscale(gaussian_blur(as_float(image), 1.7), factor)
    expected = jpeg(quantize(gaussian_noise(small, 12.0, np.random.default_rng(5))), 35)
    np.testing.assert_array_equal(distort(image, levels, np.random.default_rng(5), factor), expected)


def test_distortion_depends_on_the_seed_alone_and_none_returns_the_image() -> None:
    image, levels = photo(40, 47), Levels(0.0, 20.0, 80)
    one, same, other = (distort(image, levels, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    np.testing.assert_array_equal(distort(image, Levels(), np.random.default_rng(0)), image)
    floats = as_float(image)
    assert gaussian_noise(floats, 0, np.random.default_rng(0)) is floats
    assert gaussian_blur(floats, 0) is downscale(floats, 1) is floats


# noise


@pytest.mark.parametrize("sigma", [3.0, 50.0])
def test_noise_is_white_gaussian_of_the_given_sigma_and_not_clipped(sigma: float) -> None:
    image = np.ones((150, 150, 3), np.float32)
    noise = (gaussian_noise(image, sigma, np.random.default_rng(0)) - image) * 255
    assert (image == 1).all()
    assert noise.dtype == np.float32
    n = noise.size
    assert abs(noise.mean()) < 4 * sigma / np.sqrt(n)
    assert abs(noise.std() / sigma - 1) < 4 / np.sqrt(2 * n)
    assert abs((noise**4).mean() / sigma**4 - 3) < 4 * np.sqrt(96 / n)  # the kurtosis of a Gaussian
    for neighbours in (noise[1:] * noise[:-1], noise[:, 1:] * noise[:, :-1], noise[..., 1:] * noise[..., :-1]):
        assert abs(neighbours.mean() / sigma**2) < 4 / np.sqrt(neighbours.size)


# blur


@pytest.mark.parametrize("sigma", [0.2, 1.0, 2.6, 5.0])
@pytest.mark.parametrize("shape", [(40, 33), (7, 15)])
def test_blur_equals_scipys(sigma: float, shape: tuple[int, int]) -> None:
    image = as_float(photo(*shape))
    expected = ndimage.gaussian_filter(image.astype(float), sigma, mode="nearest", radius=10, axes=(0, 1))
    blurred = gaussian_blur(image, sigma)
    assert blurred.dtype == np.float32
    np.testing.assert_allclose(blurred, expected, atol=1e-6)


# downscale


def imresize(image: Float, factor: int) -> Double:
    """MATLAB's imresize by Pillow, which has the same kernel but does not mirror the image beyond its ends."""
    margin = 4  # of the small image
    padded = np.pad(image, [(margin * factor,) * 2] * 2 + [(0, 0)], mode="symmetric")
    size = padded.shape[1] // factor, padded.shape[0] // factor
    resized = (Image.fromarray(plane).resize(size, Image.Resampling.BICUBIC) for plane in padded.transpose(2, 0, 1))
    return np.dstack([np.asarray(plane, dtype=float) for plane in resized])[margin:-margin, margin:-margin]


@pytest.mark.parametrize(("factor", "size"), [(2, (12, 17)), (3, (12, 17)), (4, (12, 17)), (4, (4, 5))])
def test_downscale_equals_imresize(factor: int, size: tuple[int, int]) -> None:
    image = as_float(photo(size[0] * factor, size[1] * factor))
    expected, small = imresize(image, factor), downscale(image, factor)
    assert (small.dtype.name, small.flags.c_contiguous) == ("float32", True)
    np.testing.assert_allclose(small, expected, atol=1e-5)
    assert np.abs(quantize(small).astype(int) - np.rint(255 * expected).clip(0, 255)).max() <= 1


def test_downscale_refuses_what_is_no_multiple() -> None:
    with pytest.raises(ValueError, match="an image of 18x16 cannot be shrunk by 4"):
        downscale(as_float(photo(16, 18)), 4)


# rounding and JPEG


def test_quantise_rounds_and_clips() -> None:
    values = np.array([-0.1, 0.0, 0.4999 / 255, 0.5001 / 255, 254.6 / 255, 1.0, 1.2], dtype=np.float32)
    assert quantize(values).tolist() == [0, 0, 0, 1, 255, 255, 255]
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(quantize(as_float(every)), every)


@pytest.mark.parametrize("shape", [(48, 64), (37, 51), (1, 1)])
@pytest.mark.parametrize("quality", [10, 40, 90])
def test_jpeg_equals_pillows(quality: int, shape: tuple[int, int]) -> None:
    image = photo(*shape)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    np.testing.assert_array_equal(jpeg(image, quality), np.asarray(Image.open(buffer)))


def test_jpeg_refuses_what_it_cannot_encode() -> None:
    with pytest.raises((ValueError, cv2.error)):
        jpeg(np.zeros((1, 70_000, 3), np.uint8), 50)
