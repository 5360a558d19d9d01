from __future__ import annotations

import math
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sr_models.extractors.squeezenet import SqueezeNet, load_squeezenet
from sr_models.losses import perceptual
from sr_models.losses.adversarial import ADVERSARIAL_LOSSES, category_loss
from sr_models.losses.perceptual import PerceptualDistance, PerceptualLoss, perceptual_quality

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def trunk() -> SqueezeNet:
    torch.manual_seed(0)
    return SqueezeNet().eval().requires_grad_(False)


@pytest.fixture
def as_default(trunk: SqueezeNet, monkeypatch: pytest.MonkeyPatch) -> SqueezeNet:
    """A trunk in the place of the shipped one."""
    monkeypatch.setattr(perceptual, "shipped_distance", lambda device: PerceptualDistance(trunk))
    return trunk


def pictures(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 5, 5, generator=rng)
    return F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False).clamp(0, 1)


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (63, 40), (96, 96)])
def test_distance_is_zero_for_the_same_image_alone(trunk: SqueezeNet, size: tuple[int, int]) -> None:
    images = pictures(3, *size)
    distance = PerceptualDistance(trunk)
    assert torch.equal(distance(images, images), torch.zeros(3))
    noisy = images + 0.1 * torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    assert (distance(noisy, images) > 0).all()
    assert (distance(noisy, images) < 2).all()
    torch.testing.assert_close(distance(noisy, images), distance(images, noisy))
    assert torch.equal(distance(noisy, images), distance(noisy, images))


def test_distance_by_hand(trunk: SqueezeNet) -> None:
    one, other = pictures(1, 20, 24), pictures(1, 20, 24, seed=1)
    terms = []
    for features, others in zip(trunk(one), trunk(other), strict=True):
        cosine = F.cosine_similarity(features, others, dim=1)
        terms.append((2 - 2 * cosine).mean())
    torch.testing.assert_close(PerceptualDistance(trunk)(one, other)[0], torch.stack(terms).mean(), rtol=1e-4, atol=0)


def test_distance_grows_with_the_damage(shared: Path) -> None:
    trunk = load_squeezenet(shared / "data" / "weights" / "squeezenet11_imagenet_caffe.npz")
    images = pictures(2, 64, 64)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    distances = torch.stack([PerceptualDistance(trunk)(images + s * noise, images) for s in (0.01, 0.03, 0.1, 0.3)])
    assert (distances.diff(dim=0) > 0).all()


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_gradients_are_finite_on_flat_and_equal_images(trunk: SqueezeNet, value: float) -> None:
    flat = torch.full((1, 3, 16, 16), value, requires_grad=True)
    extractors: list[Any] = [trunk, lambda images: (images,)]  # the second gives features of zero
    for extractor, target in product(extractors, (flat.detach().clone(), pictures(1, 16, 16))):
        (gradient,) = torch.autograd.grad(PerceptualDistance(extractor)(flat, target).sum(), flat)
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("images", "targets", "message"),
    [
        ((1, 3, 16, 16), (1, 3, 16, 17), "differ in shape"),
        ((1, 3, 15, 16), (1, 3, 15, 16), "16x16 or more"),
        ((1, 1, 16, 16), (1, 1, 16, 16), "16x16 or more"),
        ((3, 16, 16), (3, 16, 16), "16x16 or more"),
    ],
)
def test_bad_pairs(as_default: SqueezeNet, images: tuple[int, ...], targets: tuple[int, ...], message: str) -> None:
    for measure in (PerceptualDistance(as_default), PerceptualLoss(as_default), perceptual_quality):
        with pytest.raises(ValueError, match=message):
            measure(torch.zeros(images), torch.zeros(targets))


def test_quality_is_minus_the_distance_image_by_image(as_default: SqueezeNet) -> None:
    images, targets = pictures(3, 24, 20), pictures(3, 24, 20, seed=1)
    quality = perceptual_quality(images, targets)
    assert quality.dtype == torch.float64
    torch.testing.assert_close(quality.float(), -PerceptualDistance(as_default)(images, targets))
    for index in range(3):
        assert torch.equal(perceptual_quality(images[[index]], targets[[index]])[0], quality[index])
    assert perceptual_quality(images[:0], targets[:0]).shape == (0,)


def test_the_shipped_trunk() -> None:
    images = pictures(1, 32, 32)
    assert float(perceptual_quality(images, images)) == 0
    assert float(perceptual_quality(images.flip(-1), images)) < -0.01


def test_loss_sums_the_weighted_depths(trunk: SqueezeNet) -> None:
    images, targets = pictures(2, 32, 32).requires_grad_(), pictures(2, 32, 32, seed=1)
    parts = [F.l1_loss(one, other) for one, other in zip(trunk(images), trunk(targets), strict=True)]
    assert PerceptualLoss(trunk)(targets, targets) == 0
    weights = (0.5, 0.0, 2.0, 1.0)
    loss = PerceptualLoss(trunk, weights)(images, targets)
    torch.testing.assert_close(loss, sum(w * p for w, p in zip(weights, parts, strict=True)))
    (gradient,) = torch.autograd.grad(loss, images)
    assert gradient.abs().sum() > 0
    with pytest.raises(ValueError, match="5 weights for 4 depths"):
        PerceptualLoss(trunk, perceptual.VGG19_CONV5_4)


@pytest.mark.parametrize("kind", ADVERSARIAL_LOSSES)
@pytest.mark.parametrize("shape", [(4, 1), (2, 1, 5, 7)])
def test_adversarial_losses(kind: str, shape: tuple[int, ...]) -> None:
    loss = ADVERSARIAL_LOSSES[kind]
    rng = torch.Generator().manual_seed(0)
    undecided = torch.zeros(shape)
    assert float(loss.generator(undecided, undecided)) == pytest.approx(math.log(2))
    assert float(loss.discriminator(undecided, undecided)) == pytest.approx(math.log(2))
    real, fake = torch.randn(shape, generator=rng) + 2, torch.randn(shape, generator=rng) - 2
    assert loss.discriminator(real, fake) < math.log(2) < loss.discriminator(fake, real)
    assert loss.generator(fake, real) < math.log(2) < loss.generator(real, fake)
    extreme = torch.full(shape, 1e4)
    assert torch.isfinite(loss.generator(extreme, -extreme))
    assert torch.isfinite(loss.discriminator(-extreme, extreme))
    fake.requires_grad_()
    (gradient,) = torch.autograd.grad(loss.generator(real, fake), fake)
    assert (gradient < 0).all()  # a step raises the logits of fake images
    (gradient,) = torch.autograd.grad(loss.discriminator(real, fake), fake)
    assert (gradient > 0).all()


def test_only_the_relativistic_generator_uses_real_logits() -> None:
    fake, real = torch.randn(3, 1), torch.randn(3, 1)
    for loss in ADVERSARIAL_LOSSES.values():
        moved = loss.generator(real + 1, fake) != loss.generator(real, fake)
        assert bool(moved) == loss.uses_real
    loss = ADVERSARIAL_LOSSES["relativistic"]
    torch.testing.assert_close(loss.discriminator(real + 7, fake + 7), loss.discriminator(real, fake))


def test_category_loss_leaves_out_background_and_unknown() -> None:
    logits = torch.randn(5, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    ids = torch.tensor([0, 3, 255, 7, 0])
    loss = category_loss(logits, ids)
    torch.testing.assert_close(loss, F.cross_entropy(logits[[1, 3]], ids[[1, 3]]))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient[[0, 2, 4]] == 0).all()
    assert (gradient[[1, 3]] != 0).any()
    nothing = category_loss(logits, torch.tensor([0, 255, 0, 0, 255]))
    assert nothing == 0
    assert (torch.autograd.grad(nothing, logits)[0] == 0).all()
