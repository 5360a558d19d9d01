"""The one-network baselines: their sizes, their files, their training."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import benchmarks.baselines.train
from agents.policies.heuristics import FixedChain
from agents.rollout import draw_starts, play
from benchmarks.baselines import BASELINES
from benchmarks.baselines.complexity import count_macs, macs_per_pixel, parameter_count
from benchmarks.baselines.owan import read_published
from benchmarks.baselines.same_size import BaselineNetwork
from benchmarks.baselines.training import BaselineTraining, train_baseline
from benchmarks.baselines.weights import (
    BaselineTool,
    BaselineWeights,
    Training,
    as_tool,
    read_baseline,
    write_baseline,
)
from restore_env import Task
from restore_env.distortions.protocol import Levels, downscale, quantize
from restore_env.patches import PatchSampler
from restore_env.toolbox import Toolbox, bicubic_upscale
from tests.support.toolkit import photographs, source
from tools_zoo.networks import NETWORKS
from tools_zoo.toolboxes import ToolWeights, update_toolbox

pytestmark = pytest.mark.usefixtures("one_thread", "few_validation_patches")


def shaken(name: str) -> BaselineNetwork:
    """A network with nothing at 0, its normalisation's statistics included."""
    torch.manual_seed(0)
    network = BASELINES[name].network().eval()
    with torch.no_grad():
        for key, value in network.state_dict().items():
            if "running" in key:
                value.copy_(torch.rand_like(value) + 0.5)
            elif value.is_floating_point():
                value.add_(0.01 * torch.randn_like(value))
    return network


def settings(out: Path, name: str = "cascade", **changes: object) -> BaselineTraining:
    values: dict[str, Any] = {"baseline": name, "out": out, "steps": 8, "batch_size": 2, "patch_size": 12, **changes}
    return BaselineTraining(**values)


PATCH, SMALL_720P = 63 * 63, 320 * 180
PUBLISHED = {
    # parameters and 10^9 multiply-adds for so many input pixels, of the network for so many colours
    "vdsr": (667e3, 2.65, PATCH, 3),  # Yu et al., CVPR 2018, table 3
    "vdsr_s": (209e3, 0.83, PATCH, 3),
    "dncnn": (669e3, 2.66, PATCH, 3),
    "owan": (391_456, None, PATCH, 3),  # the published weights
    "srcnn": (57e3, 52.7, SMALL_720P, 1),  # Ahn, Kang, Sohn, ECCV 2018, table 1
    "vdsr_x4": (665e3, 612.6, SMALL_720P, 1),
    "lapsrn": (813e3, 149.4, SMALL_720P, 1),
    "drrn": (297e3, 6796.9, SMALL_720P, 1),
    "memnet": (677e3, 2662.4, SMALL_720P, 1),
    "srresnet": (1543e3, 127.8, SMALL_720P, 3),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_are_those_published(name: str) -> None:
    published_parameters, published_gmacs, pixels, colours = PUBLISHED[name]
    network = BASELINES[name].build(colours)
    parameters, gmacs = parameter_count(network), macs_per_pixel(network, colours) * pixels / 1e9
    if name == "lapsrn":  # published are its 4x4 transposed convolutions as 3x3 ones at their output's size
        wide, narrow = 64 * 64 * 4**2, 64 * 64 * 3**2
        parameters -= 2 * (wide - narrow)
        gmacs += pixels * (4 + 16) * (narrow - wide / 4) / 1e9
        assert parameters - 1476 == pytest.approx(published_parameters, rel=1e-3)  # without biases
    assert parameters == pytest.approx(published_parameters, rel=0.01)
    if published_gmacs is not None:
        assert gmacs == pytest.approx(published_gmacs, rel=0.01)


def test_what_runs_is_what_is_counted() -> None:
    lstm = nn.LSTM(3, 5)
    assert count_macs(lstm, lambda twin: twin(torch.zeros(2, 4, 3))) == 2 * 4 * (4 * 5 * 3 + 4 * 5 * 5)
    assert count_macs(nn.Conv2d(4, 6, 3, groups=2), lambda twin: twin(torch.zeros(1, 4, 5, 5))) == 9 * 6 * 2 * 9
    assert count_macs(nn.ConvTranspose2d(4, 6, 4, 2, 1), lambda twin: twin(torch.zeros(1, 4, 5, 5))) == 25 * 24 * 16
    assert parameter_count(nn.Linear(2, 3), "no module") == 9


@pytest.mark.parametrize("name", BASELINES)
def test_any_size_goes_in_and_training_begins_somewhere_sensible(name: str) -> None:
    row = BASELINES[name]
    images = torch.rand(1, 3, 7, 5)
    with torch.no_grad():
        restored = row.network().eval()(images)
    assert restored.shape == (1, 3, 7 * row.factor, 5 * row.factor)
    if name not in ("owan", "srcnn", "srresnet", "lapsrn"):
        assert torch.equal(restored, bicubic_upscale(images, row.factor))


@pytest.mark.parametrize("name", [name for name, row in BASELINES.items() if name != "owan"])
def test_nothing_beyond_its_reach_matters(name: str) -> None:
    network = shaken(name)
    assert network.receptive_radius is not None
    images = torch.rand(1, 3, 4, network.receptive_radius + 4)
    images = torch.cat([images, images])
    images[1, :, :, 0] += 1
    with torch.no_grad():
        one, other = network(images)
    beyond = (network.receptive_radius + 1) * BASELINES[name].factor
    assert torch.allclose(one[..., beyond:], other[..., beyond:], atol=1e-6, rtol=0)
    assert not torch.allclose(one[..., :beyond], other[..., :beyond], atol=1e-3)


@pytest.mark.parametrize("name", ["dncnn_s", "srresnet"])
def test_normalisation_is_folded_and_batches_are_parted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BaselineTool, "batch_pixels", 1)
    network, images = shaken(name), torch.rand(3, 3, 9, 8)
    with torch.no_grad():
        expected = network(images)
        tool = BaselineTool(name, network, 1.0)
        restored = tool(images)
    assert torch.allclose(restored, expected, atol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in tool.modules())


class TestOwan:
    def test_the_published_weights_restore(self, shared: Path) -> None:
        file = shared / "data" / "weights" / "owan_model_best.pth"
        if not file.is_file():
            pytest.skip("no published OWAN weights: IMAGERESTORE_SHARED has no data/weights/owan_model_best.pth")
        tool = as_tool(BaselineWeights(BASELINES["owan"], read_published(file), {}))
        task = Task(toolbox=[tool], severity="moderate", upscale=(1,))
        played = play(FixedChain((0,), 1), task, draw_starts(task, 4, 0))
        assert played.gain > 2

    def test_other_files_are_refused(self, tmp_path: Path) -> None:
        other = tmp_path / "other.pth"
        torch.save({"conv2.weight": torch.zeros(3, 16, 3, 3)}, other)
        with pytest.raises(ValueError, match=r"other\.pth: not OWAN: FEB"):
            read_published(other)
        other.write_bytes(b"nothing")
        with pytest.raises(ValueError, match=r"not a readable \.pth file of tensors"):
            read_published(other)
        with pytest.raises(ValueError, match="no such file"):
            read_published(tmp_path / "none.pth")


class TestFiles:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        row = BASELINES["srcnn"]
        write_baseline(tmp_path / "x.safetensors", BaselineWeights(row, row.network().state_dict(), {"steps": 3}))
        return tmp_path / "x.safetensors"

    def test_what_is_written_is_read(self, path: Path) -> None:
        weights = read_baseline(path, "srcnn")
        assert (weights.baseline, weights.recipe) == (BASELINES["srcnn"], {"steps": 3})
        tool = as_tool(weights)
        assert (tool.scale, tool.macs_per_pixel) == (4, BASELINES["srcnn"].macs_per_pixel)
        assert Toolbox([tool])[0](torch.rand(1, 3, 6, 6)).shape == (1, 3, 24, 24)

    def test_what_is_wrong_is_told(self, path: Path, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="weights of srcnn, not of vdsr"):
            read_baseline(path, "vdsr")
        with pytest.raises(ValueError, match=r"none: no such file; expected what python -m benchmarks"):
            read_baseline(tmp_path / "none")
        weights = read_baseline(path)
        write_baseline(path, dataclasses.replace(weights, baseline=BASELINES["enhancenet"]))
        with pytest.raises(ValueError, match="another architecture; enhancenet has"):
            read_baseline(path)
        broken = {key: value * np.nan for key, value in weights.state.items()}
        write_baseline(path, dataclasses.replace(weights, state=broken))
        with pytest.raises(ValueError, match="finite"):
            read_baseline(path)
        path.write_bytes(path.read_bytes()[:100])
        with pytest.raises(ValueError, match="not a readable safetensors file"):
            read_baseline(path)


def trained(patches: int, start: float, end: float, **more: object) -> dict[str, object]:
    return {"patches": patches, "psnr_start": start, "psnr_output": end, "finished": True, **more}


def test_what_a_doubling_was_worth() -> None:
    first = trained(100_000, 20.0, 25.0)
    assert Training.of(first) == Training(100_000, None)
    later = Training.of(trained(300_000, 25.0, 25.2, earlier=[first]))
    assert later.patches == 400_000
    assert later.slope == pytest.approx(0.1)
    assert not later.flat
    assert str(later) == "0.40 M patches, undertrained"
    flat = Training.of(trained(100_000, 25.0, 25.04, earlier=[first]))
    assert flat.flat
    assert str(flat) == "0.20 M patches, trained out"
    assert Training.of(trained(100_000, 25.0, 25.04, earlier=[first]) | {"finished": False}).slope is None
    assert not Training.of(trained(240, 20.0, 20.0, earlier=[trained(240, 19.0, 20.0)])).flat  # nothing learnt yet
    assert Training.of({}) == Training(0, None)


def test_training_goes_on_from_finished_weights(tmp_path: Path) -> None:
    names: set[str] = set()
    training = train_baseline(settings(tmp_path), source(), lambda now: names.add(now.name))
    recipe = read_baseline(tmp_path / "cascade.safetensors", "cascade").recipe
    assert (training.patches, recipe["steps"], recipe["patches"]) == (16, 8, 16)
    assert names == {"cascade-1"}
    assert "| fixed cascade | 152,553 |" in (tmp_path / "README.md").read_text()
    assert train_baseline(settings(tmp_path), source()) == training
    more = settings(tmp_path / "more", init=(tmp_path / "cascade.safetensors",), severity="12,17", saturation_prob=0.5)
    assert train_baseline(more, source()).patches == 32
    later = read_baseline(tmp_path / "more" / "cascade.safetensors").recipe
    assert (later["severity"], later["saturation_prob"]) == ("12,17", 0.5)
    assert later["earlier"] == [{key: value for key, value in recipe.items() if key != "earlier"}]
    assert later["learning_rate"] == pytest.approx(recipe["learning_rate"] / 2**0.5)


def test_a_cascade_starts_from_tools(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = NETWORKS["eight_layer"]()
    update_toolbox(tmp_path / "box", [ToolWeights("denoise_4", "eight_layer", network.state_dict())])
    tool = tmp_path / "box" / "denoise_4.safetensors"
    train_baseline(settings(tmp_path, init=(tool,), steps=1, learning_rate=1e-9), source())
    state = read_baseline(tmp_path / "cascade.safetensors").state
    for key, value in network.state_dict().items():
        torch.testing.assert_close(state[f"stages.0.{key}"], value, atol=1e-6, rtol=0)
    assert not state["stages.1.tail.weight"].abs().max() > 1e-6
    with pytest.raises(ValueError, match="4 tools are too many for the 3 stages"):
        train_baseline(settings(tmp_path / "many", init=(tool,) * 4), source())
    with pytest.raises(ValueError, match="several, of tools, are for a cascade"):
        settings(tmp_path, "vdsr", init=(tool, tool))


def test_a_super_resolver_learns_from_small_images(tmp_path: Path) -> None:
    train_baseline(settings(tmp_path, "srcnn", patch_size=6), source())
    recipe = read_baseline(tmp_path / "srcnn.safetensors").recipe
    assert recipe["severity"] == "clean"
    assert 15 < recipe["psnr_input"] < 60
    assert (settings(tmp_path, "srcnn", patch_size=0).patch_size, settings(tmp_path, "srcnn").severity) == (24, "clean")
    with pytest.raises(ValueError, match="cascade keeps the size of images"):
        settings(tmp_path, severity="clean")
    with pytest.raises(ValueError, match="unknown severity"):
        settings(tmp_path, severity="awful")


def test_small_patches_are_those_of_their_targets() -> None:
    sampler = PatchSampler(source(), [0, 1], 8, lambda rng: Levels(), factor=4)
    inputs, targets = sampler.batch(np.random.default_rng(0), 6)
    assert targets.shape == (6, 32, 32, 3)
    for small, large in zip(inputs, targets, strict=True):
        expected = quantize(downscale(large.astype(np.float32) / 255, 4)).astype(int)
        assert np.abs(expected - small)[2:-2, 2:-2].max() <= 1  # the borders saw what lies around
    with pytest.raises(ValueError, match="no image is as large as a patch of 400x400"):
        PatchSampler(source(), [0], 100, lambda rng: Levels(), factor=4)


def test_the_command_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(photographs(1, 40, 50)[0]).save(tmp_path / "a.png")
    arguments = ["cascade", "--images", str(tmp_path), "--out", str(tmp_path), "--steps", "2", "--patch-size", "12"]
    assert benchmarks.baselines.train.main(arguments) == 0
    assert "fixed cascade: 32 patches" in capsys.readouterr().out
    assert (
        read_baseline(tmp_path / "cascade.safetensors")
        .recipe["command"]
        .startswith("python -m benchmarks.baselines.train")
    )
    other = [*arguments, "--severity", "12,17", "--saturation-prob", "0.5", "--out", str(tmp_path / "other")]
    assert benchmarks.baselines.train.main(other) == 0
    recipe = read_baseline(tmp_path / "other" / "cascade.safetensors").recipe
    assert (recipe["severity"], recipe["saturation_prob"]) == ("12,17", 0.5)
    capsys.readouterr()
    assert benchmarks.baselines.train.main([*arguments, "--severity", "clean"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(SystemExit):
        benchmarks.baselines.train.main(["vgg", "--out", str(tmp_path)])
    assert "invalid choice: 'vgg'" in capsys.readouterr().err
