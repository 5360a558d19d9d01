from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sr_models.discriminators import DISCRIMINATORS
from sr_models.discriminators.discriminator import Discriminator
from sr_models.discriminators.semantic_fusion import SemanticFusion
from sr_models.discriminators.vgg import VGGDiscriminator
from sr_models.losses.adversarial import ADVERSARIAL_LOSSES

pytestmark = pytest.mark.usefixtures("one_thread")

PATCH_AND_PIXEL = ("patch", "pixel")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def small(name: Any, channels: int | None = 64) -> Discriminator:
    torch.manual_seed(0)
    return DISCRIMINATORS[name](channels, 8)


@pytest.mark.parametrize(
    ("name", "channels", "millions"),
    [("patch", 1024, 10.1), ("pixel", 1024, 10.2), ("patch", None, 2.76), ("pixel", None, 4.38)],
)
def test_published_sizes(name: Any, channels: int | None, millions: float) -> None:
    counts = [parameter.numel() for parameter in DISCRIMINATORS[name](channels, 64).parameters()]
    assert sum(counts) / 1e6 == pytest.approx(millions, rel=0.006)


@pytest.mark.parametrize("size", [(32, 32), (96, 96), (63, 50), (64, 112)])
@pytest.mark.parametrize("channels", [None, 64])
def test_shapes(size: tuple[int, int], channels: int | None) -> None:
    images = random(2, 3, *size)
    maps = None if channels is None else random(2, channels, *(-(-side // 16) for side in size))
    height, width = size
    assert small("patch", channels)(images, maps).real.shape == (2, 1, height // 8 - 2, width // 8 - 2)
    assert small("pixel", channels)(images, maps).real.shape == (2, 1, height, width)
    real, categories = small("vgg", None)(images)
    assert (real.shape, categories.shape) == ((2, 1), (2, 8))


def test_features_of_the_published_crop_are_not_pooled() -> None:
    network = VGGDiscriminator(width=4)
    assert network.features[:-2](random(2, 3, 96, 96)).shape == (2, 32, 6, 6)


def test_every_state_can_be_averaged_and_batches_leave_no_statistics() -> None:
    for name, channels in (("vgg", None), ("patch", 64), ("pixel", 64)):
        assert all(value.is_floating_point() for value in small(name, channels).state_dict().values())
    network = small("vgg", None)
    assert set(network.state_dict()) == {name for name, _ in network.named_parameters()}


@pytest.mark.parametrize("name", PATCH_AND_PIXEL)
def test_gradients_reach_the_generator_and_the_zero_convolutions(name: Any) -> None:
    network, fake, real = small(name), random(1, 3, 48, 48).requires_grad_(), random(1, 3, 48, 48, seed=1)
    maps = random(1, 64, 3, 3, seed=2)
    for adversarial in ADVERSARIAL_LOSSES.values():
        network.zero_grad()
        fake.grad = None
        adversarial.generator(network(real, maps).real, network(fake, maps).real).backward()  # type: ignore[no-untyped-call]
        assert fake.grad is not None
        assert float(fake.grad.abs().sum()) > 0
        fusions = [module for module in network.modules() if isinstance(module, SemanticFusion)]
        assert len(fusions) == 3
        for fusion in fusions:
            assert fusion.out.weight.grad is not None
            assert float(fusion.out.weight.grad.abs().sum()) > 0


@pytest.mark.parametrize("name", PATCH_AND_PIXEL)
def test_semantics_count_once_the_zero_convolution_has_moved(name: Any) -> None:
    network, images = small(name).eval(), random(1, 3, 48, 48)
    # in a random network the semantics' share is small; group norm takes the scale of the maps away, not their pattern
    one, other = random(1, 64, 3, 3, seed=1), random(1, 64, 3, 3, seed=2)
    with torch.no_grad():
        assert torch.equal(network(images, one).real, network(images, other).real)
        for index in range(3):
            moved = copy.deepcopy(network)
            fusion = [module for module in moved.modules() if isinstance(module, SemanticFusion)][index]
            nn.init.normal_(fusion.out.weight)
            difference = (moved(images, one).real - moved(images, other).real).abs().max()
            assert difference > 1e-4, index


def test_attention_reaches_the_whole_image() -> None:
    """With the features of one corner changed, the fused features change everywhere."""
    torch.manual_seed(0)
    fusion = SemanticFusion(16, 64, upscale=4, width=8).eval()
    nn.init.normal_(fusion.out.weight)
    features, maps = random(1, 16, 32, 32), random(1, 64, 8, 8, seed=1)
    changed = features.clone()
    changed[..., :4, :4] += 5
    with torch.no_grad():
        difference = (fusion(changed, maps) - fusion(features, maps)).abs().amax(1)
    assert float(difference[..., 16:, 16:].min()) > 0


def test_bfloat16() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        logits = small("pixel")(random(1, 3, 32, 32), random(1, 64, 2, 2)).real
        loss = ADVERSARIAL_LOSSES["relativistic"].generator(logits, logits)
    assert torch.isfinite(loss)
    loss.backward()  # type: ignore[no-untyped-call]


def test_errors() -> None:
    network = small("pixel")
    for maps, found in ((None, "None"), (random(1, 32, 2, 2), r"\(1, 32, 2, 2\)")):
        with pytest.raises(ValueError, match=rf"fuses semantics: give .*\(1, 64, h, w\), got {found}"):
            network(random(1, 3, 32, 32), maps)
    for name, channels in (("vgg", None), ("patch", 64), ("pixel", 64)):
        with pytest.raises(ValueError, match="32x32 or more"):
            small(name, channels)(random(1, 3, 31, 32), random(1, 64, 2, 2))
    with pytest.raises(ValueError, match="takes no semantics"):
        VGGDiscriminator(512)
