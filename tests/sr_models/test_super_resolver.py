from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sr_models.super_resolver as module
from restore_env.toolbox import Tool, bicubic_upscale
from sr_models.generators.light_net import LightNet
from sr_models.generators.rrdb import RRDBNet
from sr_models.generators.sft_net import SFTNet
from sr_models.prior.categories import CATEGORIES
from sr_models.prior.semantic_prior import SemanticPrior
from sr_models.super_resolver import (
    GENERATORS,
    GeneratorWeights,
    SuperResolver,
    SuperResolverError,
    interpolate,
    load_super_resolver,
    read_generator,
    with_super_resolvers,
    write_generator,
)
from tests.support.networks import TINY_GENERATORS as TINY
from tests.support.toolkit import pixelwise_toolbox
from tools_zoo.merging import MergedConvolution, merge


def stirred(network: Any, seed: int = 0) -> Any:
    """Random numbers in place of all weights, so that nothing is an identity."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.data.normal_(std=0.08, generator=generator)
    return network.eval().requires_grad_(False)


def images(height: int = 24, width: int = 17, count: int = 2) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def one_category(category: int, like: Tensor) -> Tensor:
    """Maps of probability 1 for one category everywhere."""
    maps = like.new_zeros(len(like), len(CATEGORIES), 4 * like.shape[2], 4 * like.shape[3])
    maps[:, category] = 1
    return maps


@pytest.fixture(scope="module")
def prior() -> SemanticPrior:
    torch.manual_seed(0)
    return SemanticPrior().eval().requires_grad_(False)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GENERATORS", TINY)


def test_published_sizes() -> None:
    counts = {name: sum(p.numel() for p in make().parameters()) for name, make in GENERATORS.items()}
    assert 1.6e6 <= counts["sft"] <= 1.8e6
    assert counts["rrdb_small"] <= 1.6e6
    assert counts["rrdb"] == pytest.approx(16.7e6, rel=0.01)


def test_the_light_generator_needs_few_operations() -> None:
    plain, conditioned = (LightNet(takes_maps=takes).macs_per_pixel for takes in (False, True))
    assert plain <= 400_000
    assert plain < conditioned <= 1.05 * plain


@pytest.mark.parametrize("name", TINY)
def test_an_untrained_generator_upscales_bicubically(name: str) -> None:
    network = TINY[name]()
    inputs = images()
    outputs = network(inputs, one_category(1, inputs)) if network.takes_maps else network(inputs)
    assert torch.equal(outputs, bicubic_upscale(inputs))


@pytest.mark.parametrize("name", ["sft", "light_sft"])
def test_conditioning_acts_where_the_maps_differ(name: str) -> None:
    network = stirred(TINY[name]())
    inputs = images(32, 32, 1)
    maps, changed = one_category(1, inputs), one_category(1, inputs)
    changed[:, :, :, :16] = one_category(3, inputs)[:, :, :, :16]  # the first 4 columns of the input's
    difference = (network(inputs, changed) - network(inputs, maps)).abs().amax((0, 1, 2))
    assert difference[:16].min() > 1e-4
    assert difference[4 * (4 + network.receptive_radius) :].max() == 0


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("size", [(150, 40), (61, 203)])
def test_tiles_equal_the_whole(
    name: str, size: tuple[int, int], prior: SemanticPrior, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    network = stirred(TINY[name]())
    resolver = SuperResolver(name, network, prior)
    inputs = images(*size)
    whole = resolver(inputs)
    monkeypatch.setattr(module, "MAX_PIXELS", 48 * 48)
    pieces = []
    network.register_forward_pre_hook(lambda _, given: pieces.append(given[0].shape))
    assert torch.allclose(resolver(inputs), whole, atol=2e-6)
    assert len(pieces) > 2 * len(inputs)
    assert torch.equal(resolver(inputs), resolver(inputs))


@pytest.mark.parametrize("network", [SFTNet(8, 3), RRDBNet(8, 4, 1), LightNet(8, 2)], ids=["sft", "rrdb", "light"])
def test_outputs_depend_on_the_receptive_field_alone(network: Any) -> None:
    network = stirred(network).double()
    side = 2 * network.receptive_radius + 9
    inputs = torch.rand(1, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    changed = inputs.clone()
    changed[..., side // 2, side // 2] += 1
    maps = (one_category(1, inputs),) if network.takes_maps else ()
    difference = (network(changed, *maps) - network(inputs, *maps)).abs().amax((0, 1, 2))
    seen = torch.nonzero(difference).flatten() // 4 - side // 2
    assert network.receptive_radius // 2 < int(seen.abs().max()) <= network.receptive_radius


def test_other_images_than_float_rgb_are_refused() -> None:
    resolver = SuperResolver("rrdb", TINY["rrdb_small"]())
    for wrong in (torch.rand(3, 8, 8), torch.rand(1, 1, 8, 8), torch.zeros(1, 3, 8, 8).byte(), torch.rand(1, 3, 0, 8)):
        with pytest.raises(ValueError, match="float RGB images"):
            resolver(wrong)
    with pytest.raises(ValueError, match="returned"):
        SuperResolver("x2", nn.Upsample(scale_factor=2))(images())


def test_large_batches_go_in_parts(prior: SemanticPrior, monkeypatch: pytest.MonkeyPatch) -> None:
    network = stirred(TINY["sft"]())
    resolver, inputs = SuperResolver("sft", network, prior), images(20, 20, 7)
    whole = resolver(inputs)
    monkeypatch.setattr(module, "MAX_PIXELS", 1000)
    counts: list[int] = []
    network.register_forward_pre_hook(lambda _, given: counts.append(len(given[0])))
    assert torch.allclose(resolver(inputs), whole, atol=2e-6)
    assert counts == [2, 2, 2, 1]
    assert resolver(inputs[:0]).shape == (0, 3, 80, 80)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 2)])
@pytest.mark.parametrize("name", TINY)
def test_images_smaller_than_the_receptive_field(name: str, size: tuple[int, int], prior: SemanticPrior) -> None:
    outputs = SuperResolver(name, stirred(TINY[name]()), prior)(images(*size))
    assert outputs.shape == (2, 3, 4 * size[0], 4 * size[1])
    assert torch.isfinite(outputs).all()


def test_given_maps_replace_the_priors(prior: SemanticPrior) -> None:
    resolver, inputs = SuperResolver("sft", stirred(TINY["sft"]()), prior), images()
    other = SuperResolver("sft", stirred(TINY["sft"]()), lambda given: one_category(1, given))
    assert torch.equal(other(inputs), resolver(inputs, one_category(1, inputs)))
    seen = resolver.maps(inputs)
    assert seen is not None
    assert torch.equal(resolver(inputs, seen), resolver(inputs))
    assert not torch.allclose(resolver(inputs, one_category(6, inputs)), resolver(inputs), atol=1e-4)
    with pytest.raises(ValueError, match="sum to 1"):
        resolver(inputs, seen * 2)
    with pytest.raises(ValueError, match="4 times as large"):
        resolver(inputs, seen[..., :-1])
    with pytest.raises(ValueError, match="takes no semantic maps"):
        SuperResolver("rrdb", TINY["rrdb_small"]())(inputs, seen)


def test_it_is_a_tool_and_any_module_becomes_one(prior: SemanticPrior) -> None:
    resolver = SuperResolver("sft", TINY["sft"](), prior)
    assert isinstance(resolver, Tool)
    assert resolver.macs_per_pixel == TINY["sft"]().macs_per_pixel + prior.macs_per_pixel
    nearest = SuperResolver("nearest", nn.Upsample(scale_factor=4))
    assert nearest(images()).shape == (2, 3, 96, 68)
    with pytest.raises(ValueError, match="needs a prior"):
        SuperResolver("sft", TINY["sft"]())


def test_macs_count_what_is_multiplied() -> None:
    """By counting, for every convolution, its weights times its outputs' places."""
    for make in (*TINY.values(), SemanticPrior):
        whole, inputs, total = make(), images(8, 8, 1), [0]
        network = merge(whole)

        def count(layer: nn.Conv2d, _: object, output: Tensor, total: list[int] = total) -> None:
            total[0] += layer.weight.numel() * output.shape[-1] * output.shape[-2]

        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                layer.register_forward_hook(count)
        network(inputs, one_category(1, inputs)) if getattr(network, "takes_maps", False) else network(inputs)
        assert whole.macs_per_pixel == total[0] / 64


def test_weights_survive_the_disk(tiny: None, tmp_path: Path) -> None:
    network = stirred(TINY["rrdb_small"]())
    path = tmp_path / "mine.safetensors"
    write_generator(path, GeneratorWeights("rrdb_small", "psnr", network.state_dict(), {"steps": 3}))
    read = read_generator(path)
    assert (read.network, read.stage, read.recipe) == ("rrdb_small", "psnr", {"steps": 3})
    loaded = load_super_resolver(path)
    assert loaded.name == "mine"
    assert torch.allclose(loaded(images()), network(images()), atol=1e-6)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize("name", ["light", "light_sft"])
def test_loading_merges_convolutions(name: str, tiny: None, prior: SemanticPrior, tmp_path: Path) -> None:
    network, inputs = stirred(TINY[name]()), images()
    path = tmp_path / "mine.safetensors"
    write_generator(path, GeneratorWeights(name, "psnr", network.state_dict()))
    loaded = load_super_resolver(path, prior=prior)
    maps = (prior(inputs),) if network.takes_maps else ()
    assert torch.allclose(loaded(inputs), network(inputs, *maps), atol=1e-5)
    assert not any(isinstance(layer, MergedConvolution) for layer in loaded.modules())


def test_a_folder_that_training_wrote_has_both_stages(tiny: None, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for seed, stage in enumerate(("psnr", "gan")):
        state = stirred(TINY["rrdb_small"](), seed).state_dict()
        write_generator(folder / f"{stage}.safetensors", GeneratorWeights("rrdb_small", stage, state))
    stages: tuple[str | float, ...] = ("psnr", "gan", 0.0, 1.0)
    by_stage = {stage: load_super_resolver(folder, stage=stage) for stage in stages}
    assert {resolver.name for resolver in by_stage.values()} == {"mine"}
    assert load_super_resolver(folder / "gan.safetensors").name == "mine"
    assert torch.equal(by_stage["psnr"](images()), by_stage[0.0](images()))
    assert torch.allclose(by_stage["gan"](images()), by_stage[1.0](images()), atol=1e-6)
    assert not torch.allclose(by_stage["gan"](images()), by_stage["psnr"](images()), atol=1e-3)


def test_bad_weights_are_named_in_one_line(tiny: None, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(SuperResolverError, match="no such file"):
        load_super_resolver(path)
    state = TINY["rrdb_small"]().state_dict()
    write_generator(path, GeneratorWeights("sft", "psnr", state))
    with pytest.raises(SuperResolverError, match="another architecture"):
        load_super_resolver(path)
    write_generator(path, GeneratorWeights("nonsense", "psnr", state))
    with pytest.raises(SuperResolverError, match="unknown network 'nonsense'"):
        load_super_resolver(path)
    state["tail.bias"][0] = float("nan")
    write_generator(path, GeneratorWeights("rrdb_small", "psnr", state))
    with pytest.raises(SuperResolverError, match="finite"):
        load_super_resolver(path)
    with pytest.raises(SuperResolverError, match="sft_gan, sed"):
        load_super_resolver("nobody")
    with pytest.raises(SuperResolverError, match="psnr, gan"):
        load_super_resolver("sed", stage="best")


def test_interpolation_lies_between_the_stages() -> None:
    psnr, gan = (
        GeneratorWeights("rrdb_small", stage, stirred(TINY["rrdb_small"](), seed).state_dict())
        for seed, stage in enumerate(("psnr", "gan"))
    )
    half = interpolate(psnr, gan, 0.5)["tail.weight"]
    assert torch.allclose(half, (psnr.state["tail.weight"] + gan.state["tail.weight"]) / 2)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        interpolate(psnr, gan, 1.5)
    with pytest.raises(ValueError, match="two architectures"):
        interpolate(psnr, GeneratorWeights("sft", "gan", TINY["sft"]().state_dict()), 0.5)


def test_a_toolbox_that_upscales_is_left_alone() -> None:
    toolbox = pixelwise_toolbox(super_resolver=True)
    assert with_super_resolvers(toolbox) is toolbox
