"""The one-network baselines: their sizes, their files, their training."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import benchmarks.train_baseline
from agents.baselines import FixedChain
from agents.rollout import draw_starts, play
from benchmarks.baselines import BASELINES
from benchmarks.baselines.counting import count_macs, macs_per_pixel, parameter_count
from benchmarks.baselines.growing import grow, line_up
from benchmarks.baselines.owan import read_published
from benchmarks.baselines.same_size import BaselineNetwork, Cascade, PlainResidual
from benchmarks.baselines.training import BaselineTraining, train_baseline, write_baselines_card
from benchmarks.baselines.weights import (
    BaselineTool,
    BaselineWeights,
    Training,
    as_tool,
    read_baseline,
    write_baseline,
)
from restore_env import Task
from restore_env.distortions import Levels, downscale, quantise
from restore_env.sources import ImageSource, open_images
from restore_env.toolbox import Toolbox, bicubic_enlarge
from tests.toolkit import photographs
from tools_zoo import load_toolbox
from tools_zoo.fitting import Budget
from tools_zoo.networks import last_layer
from tools_zoo.patches import PatchSampler
from tools_zoo.toolboxes import SHIPPED, passes, read_tool

pytestmark = pytest.mark.usefixtures("one_thread")

PUBLISHED = [name for name, row in BASELINES.items() if row.published is not None]


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


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_are_those_published(name: str) -> None:
    row = BASELINES[name]
    published = row.published
    assert published is not None
    network = row.build(published.colours)
    parameters, gmacs = parameter_count(network), macs_per_pixel(network, published.colours) * published.pixels / 1e9
    if name == "lapsrn":  # as row.remark says
        assert "3x3" in row.remark
        wide, narrow = 64 * 64 * 4**2, 64 * 64 * 3**2
        parameters -= 2 * (wide - narrow)
        gmacs += published.pixels * (4 + 16) * (narrow - wide / 4) / 1e9
        assert parameters - 1476 == pytest.approx(published.parameters, rel=1e-3)  # without biases
    assert parameters == pytest.approx(published.parameters, rel=0.01)
    if published.gmacs is not None:
        assert gmacs == pytest.approx(published.gmacs, rel=0.01)


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
        assert torch.equal(restored, bicubic_enlarge(images, row.factor))


@pytest.mark.parametrize("name", [name for name, row in BASELINES.items() if name != "owan"])
def test_nothing_beyond_its_reach_matters(name: str) -> None:
    network = shaken(name)
    assert network.reach is not None
    images = torch.rand(1, 3, 4, network.reach + 4)
    images = torch.cat([images, images])
    images[1, :, :, 0] += 1
    with torch.no_grad():
        one, other = network(images)
    beyond = (network.reach + 1) * BASELINES[name].factor
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
        task = Task(toolbox=[tool], upscale=(1,))
        played = play(FixedChain((0,), 1), task, draw_starts(task, 4, 0))
        assert played.gain > 2

    def test_other_files_are_refused(self, tmp_path: Path) -> None:
        other = tmp_path / "other.pth"
        torch.save({"conv2.weight": torch.zeros(3, 16, 3, 3)}, other)
        with pytest.raises(ValueError, match=r"other\.pth: weights of another network than OWAN \(blocks"):
            read_published(other)
        other.write_bytes(b"nothing")
        with pytest.raises(ValueError, match="not a file of PyTorch tensors"):
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


def one_pass(patches: int, psnr: float, finished: bool = True) -> dict[str, object]:
    return {"patches": patches, "psnr_output": psnr, "finished": finished}


def test_what_a_doubling_was_worth() -> None:
    first, second = one_pass(100_000, 25.0), one_pass(300_000, 25.2)
    assert Training.of(first) == Training(100_000, None)
    assert not Training.of(first).flat
    later = Training.of({**second, "earlier": [first]})
    assert later.patches == 400_000
    assert later.slope == pytest.approx(0.1)
    assert "undertrained" in str(later)
    flat = Training.of({**one_pass(400_000, 25.24), "earlier": [first, second]})
    assert flat.slope == pytest.approx(0.04)
    assert flat.flat
    assert "flat" in str(flat)
    assert Training.of({**one_pass(400_000, 25.24, finished=False), "earlier": [first]}).slope is None
    assert Training.of({}) == Training(0, None)
    grown = Training.of({**second, "earlier": [first], "grown_from": "vdsr_s", "grown_after": 500_000})
    assert grown.slope == pytest.approx(0.2 / np.log2(900 / 600))  # what it grew from was training, too
    assert grown.patches == 400_000
    briefly = Training.of({**one_pass(60_000, 25.001), "earlier": [first], "grown_from": "x", "grown_after": 1_300_000})
    assert briefly.slope is None  # 0.06 doublings tell nothing
    assert not briefly.flat
    at_once = Training.of({**second, "psnr_start": 24.9, "grown_from": "vdsr_s", "grown_after": 300_000})
    assert at_once.slope == pytest.approx(0.3)  # one pass tells, too, if it is known where it began
    other = Training.of({**second, "psnr_start": 25.12, "earlier": [first]})
    assert other.slope == pytest.approx(0.04)  # the earlier pass was measured on other patches
    assert not Training.of({**one_pass(240, 20.01), "earlier": [one_pass(240, 20.0)]}).flat  # nothing learnt yet


@pytest.fixture(autouse=True)
def few_validation_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.baselines.training.VALIDATION_PATCHES", 6)


def source() -> ImageSource:
    opened = open_images(photographs(2, 120, 140), min_size=16)
    assert isinstance(opened, ImageSource)
    return opened


def settings(out: Path, name: str = "cascade", **changes: object) -> BaselineTraining:
    base = BaselineTraining(BASELINES[name], out, Budget(steps=8), batch_size=2, patch_size=12)
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def test_passes_double_the_training_and_go_on_from_one_another(tmp_path: Path) -> None:
    seen: list[int] = []
    training = train_baseline(settings(tmp_path, passes=3), source(), lambda now: seen.append(now.number))
    weights = read_baseline(tmp_path / "cascade.safetensors", "cascade")
    recipes = [*weights.recipe["earlier"], weights.recipe]
    assert [recipe["steps"] for recipe in recipes] == [2, 2, 4]
    assert [recipe["patches"] for recipe in recipes] == [4, 4, 8]
    assert [recipe["pass"] for recipe in recipes] == [0, 1, 2]
    assert training.patches == 16
    assert training.slope == pytest.approx(recipes[2]["psnr_output"] - recipes[1]["psnr_output"])
    assert sorted(set(seen)) == [0, 1, 2]
    card = (tmp_path / "README.md").read_text()
    assert "| fixed cascade | 152,553 |" in card
    assert "2 + 2 + 4" in card

    more = train_baseline(settings(tmp_path / "more", init=(tmp_path / "cascade.safetensors",), passes=1), source())
    assert more.patches == 32
    again = train_baseline(settings(tmp_path, passes=3), source())
    assert again == training


@pytest.mark.parametrize(
    ("name", "start"), [("vdsr", "vdsr_s"), ("dncnn_s", "vdsr_s"), ("dncnn", "vdsr"), ("dncnn", "dncnn_s")]
)
def test_what_grows_does_what_it_grew_from(name: str, start: str) -> None:
    small, large = shaken(start), BASELINES[name].network()
    assert isinstance(small, PlainResidual)
    assert isinstance(large, PlainResidual)
    images = torch.rand(2, 3, 24, 24)
    for module in small.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # the statistics are those of this batch
            nn.init.normal_(module.bias, 0.2, 0.2)
    with torch.no_grad():
        small.train()(images)
        before = small.eval()(images)
        assert float((before - images).abs().max()) > 0.01
        grow(large, small, images)
        for mode in (False, True):
            torch.testing.assert_close(large.train(mode)(images), before, atol=1e-4, rtol=1e-4)
    large.train()(images).square().mean().backward()
    assert all(parameter.grad is not None for parameter in large.parameters())
    heard = large.tail.weight.grad
    assert heard is not None
    assert float(heard[:, -1].abs().max()) > 0  # new channels can be heard soon


@pytest.mark.parametrize(("name", "start"), [("vdsr_s", "vdsr"), ("vdsr_s", "dncnn"), ("dncnn_s", "vdsr")])
def test_what_cannot_grow_says_why(name: str, start: str) -> None:
    small, large = BASELINES[start].network(), BASELINES[name].network()
    with pytest.raises(ValueError, match="20 layers of 64 channels do not fit into 15 of 42"):
        grow(large, small, torch.rand(1, 3, 24, 24))  # type: ignore[arg-type]


def test_what_it_was_trained_on_is_written_down(tmp_path: Path) -> None:
    train_baseline(settings(tmp_path, severity="12,17", clipped_share=0.5), source())
    recipe = read_baseline(tmp_path / "cascade.safetensors").recipe
    assert (recipe["severity"], recipe["clipped_share"]) == ("12,17", 0.5)
    first = recipe["earlier"][0]
    assert first["psnr_start"] == pytest.approx(first["psnr_input"], abs=2e-3)  # it begins as the identity
    assert recipe["psnr_start"] == pytest.approx(first["psnr_output"], abs=2e-3)
    assert "| 12,17; clipped: 50% |" in (tmp_path / "README.md").read_text()
    train_baseline(settings(tmp_path / "plain", severity="12,17"), source())
    plain = read_baseline(tmp_path / "plain" / "cascade.safetensors").recipe
    assert "clipped_share" not in plain
    assert plain["psnr_input"] != recipe["psnr_input"]  # what it is validated on is clipped, too
    with pytest.raises(ValueError, match=r"clipped_share must lie in \[0, 1\], got 1\.5"):
        settings(tmp_path, clipped_share=1.5)


def test_growth_is_written_down(tmp_path: Path) -> None:
    train_baseline(settings(tmp_path, "vdsr_s", passes=1, budget=Budget(steps=2)), source())
    file = tmp_path / "vdsr_s.safetensors"
    grown = settings(tmp_path / "a", "dncnn_s", init=(file,), budget=Budget(steps=2))
    training = train_baseline(grown, source())
    assert (training.patches, training.origin) == (4, "grown from VDSR-s after 4 patches")
    assert train_baseline(grown, source()) == training
    on = settings(tmp_path / "b", "dncnn_s", init=(tmp_path / "a" / "dncnn_s.safetensors",), budget=Budget(steps=2))
    assert train_baseline(on, source()).origin == training.origin
    card = (tmp_path / "b" / "README.md").read_text()
    assert "grown from VDSR-s after 4 patches, 8 patches" in card
    weights = read_baseline(on.path)
    earlier = [{**recipe, "seconds": 60.0} for recipe in weights.recipe["earlier"]]
    long = {"seconds": 90.0, "earlier": earlier, "grown_minutes": 7.0}
    write_baseline(on.path, dataclasses.replace(weights, recipe={**weights.recipe, **long}))
    write_baselines_card(on.out)
    assert "| 4.5 after 7.0 |" in (on.out / "README.md").read_text()
    larger = settings(tmp_path / "d", "dncnn", init=(tmp_path / "b" / "dncnn_s.safetensors",), budget=Budget(steps=2))
    assert train_baseline(larger, source()).origin == "grown from DnCNN-s after 12 patches"
    recipe = read_baseline(larger.path).recipe
    assert recipe["grown_minutes"] == 11.5  # of all that it grew from
    assert len(recipe["grown_by"]) == 1 + 2 + 2  # passes
    assert all(command in (larger.out / "README.md").read_text() for command in recipe["grown_by"])
    with pytest.raises(ValueError, match="vdsr_s cannot grow from it"):
        train_baseline(settings(tmp_path / "e", "vdsr_s", init=(tmp_path / "d" / "dncnn.safetensors",)), source())


def test_a_cascade_begins_as_the_tool_that_it_grows_from(tmp_path: Path) -> None:
    file = SHIPPED / "pure" / "denoise_4.safetensors"
    tool, cascade = load_toolbox("pure")[7], BASELINES["cascade"].network()
    assert tool.name == "denoise_4"
    assert isinstance(cascade, Cascade)
    images = torch.rand(2, 3, 24, 24)
    line_up(cascade, [read_tool(file, "eight_layer").state])
    torch.testing.assert_close(cascade(images), tool(images), atol=1e-5, rtol=1e-5)
    cascade(images).square().mean().backward()
    for stage in cascade.stages:
        assert float(last_layer(stage).weight.grad.abs().max()) > 0  # type: ignore[arg-type, union-attr]

    training = train_baseline(settings(tmp_path, init=(file,), passes=1), source())
    assert training.patches == 16
    assert re.fullmatch(r"grown from denoise_4 after 0\.\d\d M patches", training.origin)
    with pytest.raises(ValueError, match="weights of another architecture"):
        train_baseline(settings(tmp_path / "a", init=(SHIPPED / "pure" / "denoise_1.safetensors",)), source())
    with pytest.raises(ValueError, match="not weights of a baseline"):
        train_baseline(settings(tmp_path / "a", "vdsr_s", init=(file,)), source())


def test_a_cascade_begins_as_a_chain_of_tools(tmp_path: Path) -> None:
    toolbox, cascade = {tool.name: tool for tool in load_toolbox("pure")}, BASELINES["cascade"].network()
    files = tuple(SHIPPED / "pure" / f"{name}.safetensors" for name in ("denoise_4", "deblur_3"))
    assert isinstance(cascade, Cascade)
    images = torch.rand(2, 3, 24, 24)
    line_up(cascade, [read_tool(file, "eight_layer").state for file in files])
    chained = toolbox["deblur_3"](toolbox["denoise_4"](images))
    torch.testing.assert_close(cascade(images), chained, atol=1e-5, rtol=1e-5)

    training = train_baseline(settings(tmp_path, init=files, passes=1), source())
    assert training.origin == "grown from denoise_4, deblur_3 after 0.12 M patches"  # 60,800 and 60,976 of their own
    with pytest.raises(ValueError, match="of 3 stages takes 1 to 3 tools, got 4"):
        train_baseline(settings(tmp_path / "a", init=2 * files), source())
    with pytest.raises(ValueError, match="vdsr_s begins with one file of weights"):
        settings(tmp_path, "vdsr_s", init=files)
    with pytest.raises(ValueError, match=r"nothing\.safetensors"):
        train_baseline(settings(tmp_path / "a", init=(files[0], tmp_path / "nothing.safetensors")), source())


def test_passes_that_led_to_several_tools_count_once(tmp_path: Path) -> None:
    files = tuple(SHIPPED / "classic" / f"{name}.safetensors" for name in ("denoise_4", "deblur_3"))
    recipes = [passes(read_tool(file, "eight_layer").recipe) for file in files]
    own = [sum(recipe["steps"] * recipe["batch_size"] for recipe in both) for both in recipes]
    shared = sum(recipe["steps"] * recipe["batch_size"] for recipe in recipes[0] if recipe in recipes[1])
    train_baseline(settings(tmp_path, init=files, passes=1), source())
    assert shared > 0
    assert read_baseline(tmp_path / "cascade.safetensors").recipe["grown_after"] == sum(own) - shared


def test_a_super_resolver_learns_from_small_images(tmp_path: Path) -> None:
    train_baseline(settings(tmp_path, "srcnn", passes=1, severity="clean", patch_size=6), source())
    recipe = read_baseline(tmp_path / "srcnn.safetensors").recipe
    assert recipe["severity"] == "clean"
    assert 15 < recipe["psnr_input"] < 60
    with pytest.raises(ValueError, match="cascade keeps the size of images"):
        settings(tmp_path, severity="clean")
    with pytest.raises(ValueError, match="unknown severity"):
        settings(tmp_path, severity="awful")


def test_small_patches_are_those_of_their_targets() -> None:
    sampler = PatchSampler(source(), [0, 1], 8, lambda rng: Levels(), factor=4)
    inputs, targets = sampler.batch(np.random.default_rng(0), 6)
    assert targets.shape == (6, 32, 32, 3)
    for small, large in zip(inputs, targets, strict=True):
        expected = quantise(downscale(large.astype(np.float32) / 255, 4)).astype(int)
        assert np.abs(expected - small)[2:-2, 2:-2].max() <= 1  # the borders saw what lies around
    with pytest.raises(ValueError, match="no image is as large as a patch of 400x400"):
        PatchSampler(source(), [0], 100, lambda rng: Levels(), factor=4)


def test_the_command_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(photographs(1, 40, 50)[0]).save(tmp_path / "a.png")
    arguments = ["cascade", "--images", str(tmp_path), "--out", str(tmp_path), "--steps", "2", "--patch-size", "12"]
    assert benchmarks.train_baseline.main(arguments) == 0
    assert "fixed cascade: 32 patches" in capsys.readouterr().out
    assert read_baseline(tmp_path / "cascade.safetensors").recipe["command"].startswith("python -m benchmarks.train_")
    assert benchmarks.train_baseline.main([*arguments, "--severity", "clean"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(SystemExit):
        benchmarks.train_baseline.main(["vgg", "--out", str(tmp_path)])
    assert "invalid choice: 'vgg'" in capsys.readouterr().err
