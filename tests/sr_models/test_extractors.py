from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sr_models.extractors.clip import CLIPResNet50, load_clip
from sr_models.extractors.extractor import Extractor
from sr_models.extractors.squeezenet import SqueezeNet
from sr_models.extractors.vgg import VGG19, load_vgg19
from sr_models.losses.perceptual import VGG19_CONV5_4, VGG19_FIVE_DEPTHS, PerceptualDistance, PerceptualLoss

pytestmark = pytest.mark.usefixtures("one_thread")

EXTRACTORS: dict[str, Callable[[], Extractor]] = {"squeezenet": SqueezeNet, "vgg19": VGG19, "clip": CLIPResNet50}
LOADERS: dict[str, Callable[[Path], nn.Module]] = {"vgg19": load_vgg19, "clip": load_clip}
NETWORKS: dict[str, Callable[[], nn.Module]] = {"vgg19": VGG19, "clip": CLIPResNet50}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def clip() -> CLIPResNet50:
    torch.manual_seed(0)
    network = CLIPResNet50().eval()
    with torch.no_grad():
        for name, value in network.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                value.add_(0.1 * random(*value.shape))
    return network


@pytest.fixture(scope="module")
def vgg() -> VGG19:
    torch.manual_seed(0)
    return VGG19().eval().requires_grad_(False)


def released_clip(clip: CLIPResNet50) -> dict[str, Tensor]:
    """A state dict as CLIP's release names it, with things that the trunk does not have."""
    others = {
        "logit_scale": torch.zeros(()),
        "visual.layer4.0.conv1.weight": torch.zeros(2),
        "positional_embedding": torch.zeros(3),
    }
    return {"visual." + name: value.half() for name, value in clip.state_dict().items()} | others


@pytest.mark.parametrize("name", EXTRACTORS)
@pytest.mark.parametrize("size", [(16, 16), (64, 48), (50, 35)])
def test_one_map_per_depth(name: str, size: tuple[int, int]) -> None:
    strides = {"squeezenet": (2, 4, 8, 16), "vgg19": (1, 2, 4, 8, 16), "clip": (4, 8, 16)}[name]
    extractor = EXTRACTORS[name]()
    with torch.no_grad():
        features = extractor(random(2, 3, *size))
    assert tuple(depth.shape[1] for depth in features) == extractor.channels
    for depth, stride in zip(features, strides, strict=True):
        for found, side in zip(depth.shape[2:], size, strict=True):
            assert found in (side // stride, -(-side // stride))


def test_clip_has_the_published_parameters(clip: CLIPResNet50) -> None:
    trunk = sum(parameter.numel() for parameter in clip.parameters())
    fourth_stage, attention_pool = 14_964_736, 50 * 2048 + 3 * (2048 + 1) * 2048 + (2048 + 1) * 1024
    assert trunk + fourth_stage + attention_pool == 38_316_896  # of the whole visual tower, as released


def test_vgg19_has_the_published_shapes_and_parameters(vgg: VGG19) -> None:
    widths = [64] * 2 + [128] * 2 + [256] * 4 + [512] * 8
    expected = sum(9 * a * b + b for a, b in zip([3, *widths[:-1]], widths, strict=True))
    assert sum(parameter.numel() for parameter in vgg.parameters()) == expected == 20_024_384
    weights = [int(name.split(".")[1]) for name in vgg.state_dict() if name.endswith("weight")]
    assert weights == [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34]
    assert all((depth < 0).any() for depth in vgg(random(1, 3, 64, 64)))  # before the ReLU


@pytest.mark.parametrize("weights", [VGG19_CONV5_4, VGG19_FIVE_DEPTHS])
def test_vgg19_in_the_loss(vgg: VGG19, weights: tuple[float, ...]) -> None:
    images = random(1, 3, 32, 32).requires_grad_()
    loss = PerceptualLoss(vgg, weights)(images, random(1, 3, 32, 32, seed=1))
    (gradient,) = torch.autograd.grad(loss, images)
    assert torch.isfinite(gradient).all()
    assert float(gradient.abs().sum()) > 0
    assert float(PerceptualDistance(vgg)(images.detach(), images.detach())) == 0


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("prefix", ["visual.", ""])
def test_loads_clip_as_released(clip: CLIPResNet50, tmp_path: Path, suffix: str, prefix: str) -> None:
    state = {name.replace("visual.", prefix): value for name, value in released_clip(clip).items()}
    path = tmp_path / f"RN50{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    loaded = load_clip(path)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert loaded.layer3[0].bn1.running_var.dtype == torch.float32  # type: ignore[union-attr]
    images = random(1, 3, 32, 32)
    torch.testing.assert_close(loaded(images)[-1], clip(images)[-1], rtol=0.02, atol=0.02)


def test_loads_vgg19_as_released(vgg: VGG19, tmp_path: Path) -> None:
    path = tmp_path / "vgg19.pth"
    torch.save(vgg.state_dict() | {"classifier.0.weight": torch.zeros(2, 2)}, path)
    loaded = load_vgg19(path)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    images = random(1, 3, 16, 16)
    for one, other in zip(loaded(images), vgg(images), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", LOADERS)
def test_files_that_cannot_be_used(name: str, tmp_path: Path) -> None:
    remedy = {"vgg19": r"torchvision's vgg19", "clip": r"OpenAI's RN50"}[name] + ".*SqueezeNet, the default"

    def refused(path: Path, message: str) -> None:
        with pytest.raises(ValueError, match=message) as caught:
            LOADERS[name](path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    refused(tmp_path / "none.pth", f"no such file; expected .*{remedy}")
    for suffix in (".pth", ".safetensors"):
        damaged = tmp_path / f"damaged{suffix}"
        damaged.write_bytes(b"not weights")
        refused(damaged, f"not a readable .*{remedy}")
    empty = tmp_path / "empty.safetensors"
    save_file({"a": torch.zeros(1)}, empty)
    refused(empty, f"is missing, expected .*{remedy}")
    other = tmp_path / "other.pth"
    state = {key: torch.zeros(1) for key in NETWORKS[name]().state_dict()}
    torch.save(state, other)
    refused(other, rf"is \(1,\), expected .*{remedy}")
    torch.save([1, 2], other)
    refused(other, f"not a state dict of tensors.*{remedy}")
    torch.save(nn.ReLU(), other)
    refused(other, f"not a readable .pth file.*{remedy}")


def test_a_program_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "RN50.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(nn.ReLU()), path)
    with pytest.raises(ValueError, match=r"TorchScript archive, which is a program; save .*SqueezeNet, the default"):
        load_clip(path)
