from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.baselines.complexity import macs_per_pixel
from restore_env import FunctionTool, Task, Toolbox
from restore_env.episodes.batch import EpisodeBatch
from restore_env.images.tiling import apply_tool
from restore_env.resolve import resolve_toolbox
from restore_env.toolbox import BICUBIC_X4, ToolError, bicubic_upscale
from tests.support.toolkit import pixelwise_toolbox
from tools_zoo.catalog import SHAPES, TOOLS, training_order
from tools_zoo.networks import NETWORKS


@given(actions=st.lists(st.integers(0, 3), min_size=1, max_size=12))
@settings(max_examples=40, deadline=None)
def test_apply_does_to_every_image_what_its_own_action_says(actions: list[int]) -> None:
    toolbox = pixelwise_toolbox()
    images = torch.rand(len(actions), 3, 5, 7)
    result = toolbox.apply(images, actions)
    for image, action, output in zip(images, actions, result, strict=True):
        expected = image if action == toolbox.stop else toolbox[action](image[None])[0]
        assert torch.equal(output, expected)


def test_each_chosen_tool_runs_once_on_its_group() -> None:
    calls: list[int] = []

    def count(images: torch.Tensor) -> torch.Tensor:
        calls.append(len(images))
        return images

    Toolbox([FunctionTool(name, count) for name in "abc"]).apply(torch.rand(64, 3, 8, 8), np.arange(64) % 2)
    assert calls == [32, 32]


def test_tools_change_neither_the_input_nor_the_type() -> None:
    toolbox = Toolbox([FunctionTool("wipe", lambda images: images.mul_(0)), FunctionTool("wide", torch.Tensor.double)])
    images = torch.rand(2, 3, 8, 8)
    before = images.clone()
    assert not toolbox.apply(images, [0, 0]).any()
    assert torch.equal(images, before)
    assert toolbox.apply(images, [1, 1]).dtype == torch.float32
    toolbox.apply(images, [2, 2]).zero_()
    assert torch.equal(images, before)


def test_tools_of_different_scale_come_in_groups() -> None:
    toolbox = pixelwise_toolbox(super_resolver=True)
    images = torch.rand(3, 3, 8, 8)
    shapes = {int(row): tuple(out.shape[-2:]) for rows, out in toolbox.groups(images, [0, 3, 0]) for row in rows}
    assert shapes == {0: (8, 8), 1: (32, 32), 2: (8, 8)}
    with pytest.raises(ValueError, match="not of one size"):
        toolbox.apply(images, [0, 3, 0])


@pytest.mark.parametrize("actions", [[0, 1], [[0, 1, 2]], [0, 1, 9], [0, -1, 1]])
def test_wrong_actions_and_wrong_shapes_are_refused(actions: list[int]) -> None:
    with pytest.raises(ValueError, match="action"):
        pixelwise_toolbox().apply(torch.rand(3, 3, 8, 8), actions)
    with pytest.raises(ValueError, match="'crop' returned shape"):
        Toolbox([FunctionTool("crop", lambda images: images[..., 1:])]).apply(torch.rand(1, 3, 8, 8), [0])


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ([], "one tool or more"),
        ([BICUBIC_X4, BICUBIC_X4], "bicubic_x4"),
        ([FunctionTool("stop", abs)], "stop"),
        ([FunctionTool("half", abs, scale=0)], "scale 0"),
        ([abs], "FunctionTool"),
    ],
)
def test_impossible_toolboxes_are_refused(tools: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Toolbox(tools)


def test_names_and_actions_translate() -> None:
    toolbox = pixelwise_toolbox()
    assert [toolbox.name(action) for action in range(4)] == ["brighten", "dim", "invert", "stop"]
    assert toolbox.action("stop") == toolbox.stop == 3
    with pytest.raises(ValueError, match=r"brighten, dim, invert, stop"):
        toolbox.action("sharpen")


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (torch.full((2, 3, 8, 8), torch.nan), "'broken' returned NaN or infinite values"),
        (torch.full((2, 3, 8, 8), torch.inf), "'broken' returned NaN or infinite values"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), r"'broken' returned torch\.uint8, expected a float tensor"),
        (np.zeros((2, 3, 8, 8), np.float32), "'broken' returned ndarray, expected a float tensor"),
        (None, "'broken' returned NoneType, expected a float tensor"),
        (torch.zeros(2, 3, 8, 8, device="meta"), "'broken' returned a tensor on meta, expected one on cpu"),
    ],
)
def test_a_result_that_is_no_image_is_refused(result: Any, message: str) -> None:
    tool = FunctionTool("broken", lambda _: result, receptive_radius=0)
    with pytest.raises(ToolError, match=message):
        Toolbox([tool]).run(0, torch.rand(2, 3, 8, 8))
    if not isinstance(result, torch.Tensor) or len(result) == 1:
        with pytest.raises(ToolError, match=message.split(",")[0]):
            apply_tool(tool, torch.rand(1, 3, 8, 8))


def test_large_finite_values_are_no_error() -> None:
    toolbox = Toolbox([FunctionTool("large", lambda images: torch.full_like(images, 3e38))])
    assert bool((toolbox.run(0, torch.rand(2, 3, 8, 8)) == 3e38).all())


def test_a_tool_that_fails_is_named_and_its_error_is_kept() -> None:
    toolbox = Toolbox([FunctionTool("broken", lambda images: images[:, 7])])
    with pytest.raises(ToolError, match=r"\Atool 'broken' failed: IndexError: .*\Z") as error:
        toolbox.run(0, torch.rand(2, 3, 8, 8))
    assert isinstance(error.value.__cause__, IndexError)


@pytest.mark.parametrize("name", ["no.such.module:box", "tools_zoo:nothing", "no/folder", "math:sqrt", "math:pi"])
def test_an_import_string_that_names_no_toolbox_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="toolbox"):
        resolve_toolbox(name)


class Movable:
    """A tool that knows where it is."""

    name, scale, macs_per_pixel, receptive_radius = "movable", 1, 0.0, 0
    place = torch.device("cpu")

    def to(self, device: torch.device) -> None:
        self.place = device

    def __call__(self, images: torch.Tensor, /) -> torch.Tensor:
        return images


@pytest.fixture
def meta_device(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    monkeypatch.setattr("restore_env.toolbox.usable_device", torch.device)
    return torch.device("meta")


def test_a_toolbox_is_copied_to_another_device_and_stays_where_it_was(meta_device: torch.device) -> None:
    tool, module, double = Movable(), torch.nn.Conv2d(3, 3, 1), FunctionTool("double", lambda images: images * 2)
    toolbox = Toolbox([tool, FunctionTool("network", module), double])
    moved = resolve_toolbox(toolbox, meta_device)
    assert (toolbox.device.type, tool.place.type, module.weight.device.type) == ("cpu", "cpu", "cpu")
    assert (moved.device, moved.names) == (meta_device, toolbox.names)
    assert isinstance(moved[0], Movable)
    assert moved[0].place == meta_device
    assert isinstance(moved[1], FunctionTool)
    assert isinstance(moved[1].function, torch.nn.Conv2d)
    assert moved[1].function.weight.device == meta_device
    assert moved[2] is double  # nothing to move
    assert resolve_toolbox(moved, meta_device) is resolve_toolbox(moved) is moved
    assert resolve_toolbox(lambda: toolbox, meta_device) is not toolbox
    assert resolve_toolbox([tool], meta_device).device == meta_device
    assert EpisodeBatch(Task(toolbox=moved), 2).toolbox is moved
    alone = Toolbox([Movable()], meta_device)
    assert EpisodeBatch(Task(toolbox=alone, device="cpu"), 2).toolbox.device.type == "cpu"
    assert alone.device == meta_device


def test_bicubic_upscaling_keeps_constants_and_size() -> None:
    upscaled = bicubic_upscale(torch.full((1, 3, 9, 7), 0.25), 4)
    assert upscaled.shape == (1, 3, 36, 28)
    torch.testing.assert_close(upscaled, torch.full_like(upscaled, 0.25))


def test_no_shape_costs_more_than_the_published_one() -> None:
    for spec in TOOLS:
        published = NETWORKS[spec.network()]().macs_per_pixel
        assert all(NETWORKS[spec.network(shapes)]().macs_per_pixel <= published for shapes in SHAPES)


@pytest.mark.parametrize("name", list(NETWORKS))
def test_macs_per_pixel_of_a_network_is_exact(name: str) -> None:
    network = NETWORKS[name]()
    assert network.macs_per_pixel == macs_per_pixel(network)


@pytest.mark.parametrize("name", list(NETWORKS))
def test_the_receptive_radius_of_a_network_is_exact(name: str) -> None:
    torch.manual_seed(1)
    network = NETWORKS[name]().double()
    for parameter in network.parameters():  # some are zero at first
        torch.nn.init.normal_(parameter, std=0.1)
    image = torch.rand(1, 3, 141, 141, dtype=torch.float64, requires_grad=True)
    farthest = 0
    for place in range(68, 72):  # networks that join 4x4 pixels are not symmetric
        (gradient,) = torch.autograd.grad(network(image)[0, :, place, place].sum(), image)
        farthest = max(farthest, int((gradient[0].abs().sum(0).nonzero() - place).abs().max()))
    assert farthest == network.receptive_radius


def test_the_table_trains_parents_first() -> None:
    names = tuple(spec.name for spec in TOOLS)
    order = [spec.name for spec in training_order(names)]
    assert sorted(order) == sorted(names)
    for spec in TOOLS:
        assert spec.parent is None or order.index(spec.parent) < order.index(spec.name)
    with pytest.raises(ValueError, match="unknown tool 'sharpen'"):
        training_order(("sharpen",))
