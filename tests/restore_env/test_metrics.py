from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from restore_env.metrics import METRICS, Metric, luma, psnr, ssim
from restore_env.resolve import resolve_metric
from sr_models.losses.perceptual import perceptual_quality

skimage: Any = importlib.import_module("skimage.metrics")  # it has no types


ORACLES: dict[str, Callable[..., float]] = {
    "psnr": partial(skimage.peak_signal_noise_ratio, data_range=1),
    "ssim": partial(
        skimage.structural_similarity,
        channel_axis=0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1,
    ),
}


def negative_mean(images: Tensor, targets: Tensor) -> Tensor:
    return -images.flatten(1).mean(1)


def pictures(count: int, height: int, width: int, noise: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noisy images and their targets; the noise differs from image to image, so that their scores do."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=rng)
    targets = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
    strengths = noise * torch.arange(1, count + 1).reshape(-1, 1, 1, 1)
    return targets + strengths * torch.randn(targets.shape, generator=rng), targets


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("noise", [0.001, 0.03, 0.2])
@pytest.mark.parametrize("size", [(63, 63), (11, 40), (24, 17)])
def test_equals_scikit_image(metric: str, noise: float, size: tuple[int, int]) -> None:
    images, targets = pictures(3, *size, noise)
    scores = METRICS[metric](images, targets)
    assert scores.shape == (3,)
    assert scores.dtype == torch.float64
    expected = list(map(ORACLES[metric], targets.double().numpy(), images.double().numpy()))
    # scikit-image's PSNR lacks the floor of 1e-10, which takes 0.0005 dB off a PSNR of 60
    np.testing.assert_allclose(scores.numpy(), expected, atol={"psnr": 1e-3, "ssim": 1e-6}[metric])


@pytest.mark.parametrize(("metric", "best"), [("psnr", 100.0), ("ssim", 1.0)])
def test_identical_images_score_the_finite_best(metric: str, best: float) -> None:
    images, _ = pictures(2, 20, 20, 0.1)
    np.testing.assert_allclose(METRICS[metric](images, images.clone()).numpy(), best, rtol=1e-12)


def test_psnr_of_a_known_error() -> None:
    targets = torch.full((2, 3, 8, 8), 0.5, dtype=torch.float64)
    images = targets + torch.tensor([0.1, 0.01], dtype=torch.float64).reshape(2, 1, 1, 1)
    np.testing.assert_allclose(psnr(images, targets).numpy(), [20.0, 40.0], atol=1e-4)
    np.testing.assert_allclose(psnr(images + 0.5, targets + 0.5).numpy(), [20.0, 40.0], atol=1e-4)  # never clipped


@pytest.mark.parametrize("metric", METRICS.values())
@given(count=st.integers(1, 4), seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_images_of_a_batch_are_independent_and_higher_is_better(metric: Metric, count: int, seed: int) -> None:
    images, targets = pictures(count, 16, 19, 0.02, seed)
    before = images.clone(), targets.clone()
    together = metric(images, targets)
    apart = torch.cat([metric(images[i : i + 1], targets[i : i + 1]) for i in range(count)])
    torch.testing.assert_close(together, apart, rtol=1e-12, atol=1e-12)
    assert (together > metric(targets + 3 * (images - targets), targets)).all()  # three times the noise
    torch.testing.assert_close((images, targets), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        ("no.such.module:metric", "reward 'no.such.module:metric' cannot be imported: No module named 'no'"),
        ("restore_env.metrics:nothing", "cannot be imported: .*has no attribute 'nothing'"),
        ("restore_env.metrics:MSE_FLOOR", "is no function but float"),
        ("restore_env.metrics:", "expected 'package.module:function'"),
        (":psnr", "expected 'package.module:function'"),
        (3, "reward must be a name or a callable"),
        ("lpips", r"'lpips': choose from psnr, ssim, perceptual, or pass 'package\.module:fun"),
    ],
)
def test_other_values_get_one_clear_error(reward: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        resolve_metric(reward)
    assert "\n" not in str(caught.value)


def test_metrics_by_name_import_string_and_callable() -> None:
    assert resolve_metric("psnr") is psnr
    assert resolve_metric("restore_env.metrics:ssim") is ssim
    assert resolve_metric("perceptual") is perceptual_quality
    assert resolve_metric(negative_mean) is negative_mean


def test_ssim_needs_its_window() -> None:
    with pytest.raises(ValueError, match="needs 11x11 pixels or more, got 30x10"):
        ssim(torch.zeros(1, 3, 10, 30), torch.zeros(1, 3, 10, 30))


def test_ssim_has_gradients_after_inference_mode() -> None:
    images = torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        ssim(images, images)
    moving = images.clone().requires_grad_()
    torch.autograd.backward(ssim(moving, images).sum())
    assert moving.grad is not None


def test_luma_is_that_of_rgb2ycbcr() -> None:
    images = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    color: Any = importlib.import_module("skimage.color")
    expected = color.rgb2ycbcr(images.numpy(), channel_axis=1)[:, :1]
    np.testing.assert_allclose(255 * luma(images).numpy(), expected, atol=1e-9)
    assert float(255 * luma(torch.ones(1, 3, 1, 1))) == pytest.approx(235)
