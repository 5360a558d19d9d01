from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sr_models.discriminators.registry import make_discriminator
from sr_models.extractors.clip import CLIP_MEAN, CLIP_STD, CLIPResNet50, load_clip
from sr_models.extractors.extractor import Extractor, semantics
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
    network = CLIPResNet50()
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
    extractor = EXTRACTORS[name]()
    with torch.no_grad():
        features = extractor(random(2, 3, *size))
    assert tuple(depth.shape[1] for depth in features) == extractor.channels
    sides = [depth.shape[-1] for depth in features]
    assert sides == sorted(sides, reverse=True)
    assert sides[-1] in (size[1] // 16, -(-size[1] // 16))


def test_clip_has_the_published_shapes(clip: CLIPResNet50) -> None:
    with torch.no_grad():
        features = clip(random(1, 3, 256, 256))
    assert [tuple(depth.shape[1:]) for depth in features] == [(256, 64, 64), (512, 32, 32), (1024, 16, 16)]
    assert semantics(clip, random(2, 3, 64, 64)).shape == (2, 1024, 4, 4)


def test_clip_has_the_published_parameters(clip: CLIPResNet50) -> None:
    """Counted from the paper: every convolution is followed by a batch norm of two numbers per channel."""

    def normed(inputs: int, outputs: int, kernel: int) -> int:
        return kernel**2 * inputs * outputs + 2 * outputs

    expected = normed(3, 32, 3) + normed(32, 32, 3) + normed(32, 64, 3)
    inputs = 64
    for width, count in ((64, 3), (128, 4), (256, 6)):
        expected += normed(inputs, 4 * width, 1)  # the shortcut of the first bottleneck
        for _ in range(count):
            expected += normed(inputs, width, 1) + normed(width, width, 3) + normed(width, 4 * width, 1)
            inputs = 4 * width
    assert sum(parameter.numel() for parameter in clip.parameters()) == expected
    fourth_stage = normed(1024, 2048, 1) + 3 * (normed(2048, 512, 1) + normed(512, 512, 3) + normed(512, 2048, 1))
    fourth_stage -= 1024 * 512  # its first bottleneck takes 1024 channels
    attention_pool = 50 * 2048 + 3 * (2048 + 1) * 2048 + (2048 + 1) * 1024
    assert expected + fourth_stage + attention_pool == 38_316_896  # of the whole visual tower, as released
    shapes = {name: tuple(value.shape) for name, value in clip.state_dict().items()}
    assert shapes["conv1.weight"] == (32, 3, 3, 3)
    assert shapes["layer1.0.downsample.0.weight"] == (256, 64, 1, 1)
    assert shapes["layer3.5.conv3.weight"] == (1024, 256, 1, 1)
    assert "layer2.1.downsample.0.weight" not in shapes


def test_clip_strides_are_averages(clip: CLIPResNet50) -> None:
    """After the stem nothing skips a pixel: every convolution has stride 1 but the first."""
    strides = {name: module.stride for name, module in clip.named_modules() if isinstance(module, nn.Conv2d)}
    assert strides.pop("conv1") == (2, 2)
    assert set(strides.values()) == {(1, 1)}


def test_clip_normalises_its_input(clip: CLIPResNet50) -> None:
    images = random(1, 3, 32, 32)
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    seen = []
    hook = clip.get_submodule("conv1").register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        clip(images)
    hook.remove()
    torch.testing.assert_close(seen[0], (images - mean) / std)


def test_clip_stays_in_evaluation_mode(clip: CLIPResNet50) -> None:
    around = nn.Sequential(clip).train()
    assert around.training
    assert not any(module.training for module in clip.modules())


def test_vgg19_has_the_published_shapes_and_parameters(vgg: VGG19) -> None:
    widths = [64] * 2 + [128] * 2 + [256] * 4 + [512] * 8
    expected = sum(9 * a * b + b for a, b in zip([3, *widths[:-1]], widths, strict=True))
    assert sum(parameter.numel() for parameter in vgg.parameters()) == expected == 20_024_384
    weights = [int(name.split(".")[1]) for name in vgg.state_dict() if name.endswith("weight")]
    assert weights == [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34]
    features = vgg(random(1, 3, 64, 64))
    assert [depth.shape[-1] for depth in features] == [64, 32, 16, 8, 4]
    assert all((depth < 0).any() for depth in features)  # before the ReLU


@pytest.mark.parametrize("weights", [VGG19_CONV5_4, VGG19_FIVE_DEPTHS])
def test_vgg19_in_the_loss(vgg: VGG19, weights: tuple[float, ...]) -> None:
    images = random(1, 3, 32, 32).requires_grad_()
    loss = PerceptualLoss(vgg, weights)(images, random(1, 3, 32, 32, seed=1))
    (gradient,) = torch.autograd.grad(loss, images)
    assert torch.isfinite(gradient).all()
    assert float(gradient.abs().sum()) > 0
    assert float(PerceptualDistance(vgg)(images.detach(), images.detach())) == 0


def test_clip_in_a_discriminator(clip: CLIPResNet50) -> None:
    images = random(1, 3, 64, 48)
    network = make_discriminator("patch", clip.channels[-1], width=4)
    assert network(images, semantics(clip, images)).real.shape == (1, 1, 6, 4)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("prefix", ["visual.", ""])
def test_loads_clip_as_released(clip: CLIPResNet50, tmp_path: Path, suffix: str, prefix: str) -> None:
    state = {name.replace("visual.", prefix): value for name, value in released_clip(clip).items()}
    path = tmp_path / f"RN50{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    loaded = load_clip(path)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert loaded.layer3[0].bn1.running_var.dtype == torch.float32  # type: ignore[index,union-attr]
    images = random(1, 3, 32, 32)
    torch.testing.assert_close(semantics(loaded, images), semantics(clip, images), rtol=0.02, atol=0.02)


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
