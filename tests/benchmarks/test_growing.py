"""Baselines that begin as other networks."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.baselines import BASELINES
from benchmarks.baselines.growing import grow, line_up
from benchmarks.baselines.same_size import Cascade, PlainResidual
from benchmarks.baselines.training import train_baseline, write_baselines_card
from benchmarks.baselines.weights import read_baseline, write_baseline
from tests.support.baseline_training import settings, shaken, source
from tools_zoo import load_toolbox
from tools_zoo.networks import last_layer
from tools_zoo.toolboxes import SHIPPED, passes, read_tool
from tools_zoo.training.settings import Budget

pytestmark = pytest.mark.usefixtures("one_thread", "few_validation_patches")


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


def test_without_normalisation_the_shifts_are_lost() -> None:
    small, large = shaken("dncnn_s"), BASELINES["vdsr"].network()
    assert isinstance(small, PlainResidual)
    assert isinstance(large, PlainResidual)
    images = torch.rand(2, 3, 24, 24)
    with torch.no_grad():
        for module in small.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                module.running_mean.zero_()
                module.bias.zero_()  # scales alone
        before = small(images)
        assert float((before - images).abs().max()) > 0.01
        grow(large, small, images)
        torch.testing.assert_close(large(images), before, atol=1e-4, rtol=1e-4)
        for module in small.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.bias.fill_(0.1)
        grow(large, small, images)
        torch.testing.assert_close(large(images), before, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("name", "start"), [("vdsr_s", "vdsr"), ("vdsr_s", "dncnn"), ("dncnn_s", "vdsr")])
def test_what_cannot_grow_says_why(name: str, start: str) -> None:
    small, large = BASELINES[start].network(), BASELINES[name].network()
    with pytest.raises(ValueError, match="20 layers of 64 channels do not fit into 15 of 42"):
        grow(large, small, torch.rand(1, 3, 24, 24))  # type: ignore[arg-type]


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
