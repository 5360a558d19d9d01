from __future__ import annotations

import copy
import importlib.util
import itertools
import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from restore_env import FunctionTool, ImageRestoreVectorEnv, Task, Toolbox
from restore_env.extras import EXTRAS
from restore_env.resolve import task_toolbox
from sr_models import super_resolvers
from tests.support.networks import TOLERANCE, Computing, network_of, tool_of
from tests.support.toolkit import photographs, random_toolbox
from tools_zoo import load_toolbox, toolbox_names
from tools_zoo.backends.folding import BlockConvolution, fold, piecewise
from tools_zoo.backends.network_tool import (
    BACKENDS,
    DEFAULT_BACKEND,
    BackendError,
    NetworkTool,
    check_backend,
    with_backend,
)
from tools_zoo.backends.parity import ParityError, check_parity
from tools_zoo.networks import NETWORKS, EightLayer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=list(BACKENDS))
def backend(request: pytest.FixtureRequest) -> str:
    """Each backend that can be used here."""
    name = str(request.param)
    for package in EXTRAS.get(BACKENDS[name].extra, ()):
        pytest.importorskip(package)
    return name


@pytest.mark.parametrize("network", ["three_layer", "eight_layer", "hourglass_32", "other_layers"])
def test_every_backend_gives_what_pytorch_gives_for_every_batch_and_size(network: str, backend: str) -> None:
    if (network, backend) == ("other_layers", "ncnn"):
        pytest.skip("ncnn runs the layers of the shipped networks only")
    tool = tool_of(network, backend)
    reference = network_of(network)
    for shape in ((1, 63, 63), (13, 63, 63), (2, 64, 48), (3, 17, 30), (1, 31, 90), (5, 63, 63), (1, 8, 9), (1, 1, 2)):
        if network == "other_layers" and min(shape[1:]) < 2:
            continue  # too small for its reflections
        images = torch.rand(shape[0], 3, *shape[1:]) * 1.2 - 0.1
        before = images.clone()
        outputs = tool(images)
        assert outputs.dtype == torch.float32
        torch.testing.assert_close(outputs, reference(images), rtol=0, atol=TOLERANCE)
        assert torch.equal(images, before)


def test_batches_larger_than_a_piece_and_images_of_any_layout(backend: str) -> None:
    tool, reference = tool_of("three_layer", backend), network_of("three_layer")
    images = torch.rand(40, 3, 40, 41)
    for given in (
        images,
        images.contiguous(memory_format=torch.channels_last),
        images.flip(3),
        images[::2, :, 3:, :20],
    ):
        torch.testing.assert_close(tool(given), reference(given), rtol=0, atol=TOLERANCE)
    assert tool(images[:0]).shape == (0, 3, 40, 41)
    assert tool_of("hourglass_32", backend)(images[:0]).shape == (0, 3, 40, 41)


def test_what_is_no_image_is_refused_and_what_is_no_number_stays_in_its_image(backend: str) -> None:
    tool = tool_of("hourglass_32", backend)
    for shape in ((1, 1, 12, 12), (2, 4, 12, 12), (3, 12, 12), (1, 3, 0, 5)):
        with pytest.raises(ValueError, match=rf"^tool 'hourglass_32': expected images .*, got {re.escape(str(shape))}"):
            tool(torch.rand(shape))
    images = torch.rand(2, 3, 12, 12)
    images[0, 1, 5, 5] = float("nan")
    outputs = tool(images)
    assert bool(outputs[0].isnan().any())
    assert bool(outputs[1].isfinite().all())


def test_copies_and_pickles_run_alike_and_apart(backend: str) -> None:
    tool = tool_of("hourglass_32", backend)
    images = torch.rand(2, 3, 21, 22)
    expected = tool(images)
    copies = [copy.deepcopy(tool), pickle.loads(pickle.dumps(tool))]
    assert len(pickle.dumps(tool)) < 1.2 * len(pickle.dumps(tool_of("hourglass_32", backend)))
    for other in copies:
        assert (other.name, other.backend, other.receptive_radius) == (tool.name, backend, tool.receptive_radius)
        torch.testing.assert_close(other(images), expected, rtol=0, atol=TOLERANCE)
        for weight in other.network.parameters():
            weight.zero_()
        torch.testing.assert_close(other(images), images, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(tool(images), expected, rtol=0, atol=TOLERANCE)


def test_weights_that_change_are_noticed_and_results_and_names_stay(backend: str) -> None:
    tool = tool_of("three_layer", backend)
    names = list(tool.state_dict())
    images = torch.rand(1, 3, 20, 20)
    first = tool(images)
    kept = first.clone()
    torch.manual_seed(5)
    other = NETWORKS["three_layer"]().eval().requires_grad_(False)
    tool.network.load_state_dict(other.state_dict())
    torch.testing.assert_close(tool(images), other(images), rtol=0, atol=TOLERANCE)
    assert torch.equal(first, kept)
    assert list(tool.state_dict()) == names == [f"network.{name}" for name in other.state_dict()]


def test_several_threads_may_call_a_tool(backend: str) -> None:
    tool, reference = tool_of("three_layer", backend), network_of("three_layer")
    batches = [torch.rand(1 + number % 3, 3, 24 + number, 30) for number in range(16)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(tool, batches))
    for images, outputs in zip(batches, results, strict=True):
        torch.testing.assert_close(outputs, reference(images), rtol=0, atol=TOLERANCE)


def test_gradients_flow_where_they_are_wanted(backend: str) -> None:
    tool = tool_of("three_layer", backend)
    images = torch.rand(1, 3, 12, 12)
    tool(images)
    leaf = images.clone().requires_grad_(True)
    tool(leaf).sum().backward()
    assert leaf.grad is not None
    assert float(leaf.grad.abs().sum()) > 0
    tool.requires_grad_(True)
    tool(images).sum().backward()
    assert all(weight.grad is not None for weight in tool.parameters())


@pytest.mark.parametrize("network", ["hourglass_32", "eight_layer"])
def test_tools_loaded_and_first_called_in_inference_mode(network: str, backend: str) -> None:
    with torch.inference_mode():
        tool = tool_of(network, backend)
        images = torch.rand(2, 3, 15, 16)
        inside = tool(images)
    torch.testing.assert_close(tool(images.clone()), inside, rtol=0, atol=TOLERANCE)


def test_mixed_precision_is_pytorchs(backend: str) -> None:
    tool = tool_of("three_layer", backend)
    images = torch.rand(1, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        coarse = tool(images)
    assert 1e-4 < float((coarse - tool(images)).abs().max()) < 0.1
    assert tool.to(torch.float64)(images.double()).dtype == torch.float64


def test_a_toolbox_with_another_backend(backend: str) -> None:
    invert = FunctionTool("invert", lambda images: 1 - images)
    own = Toolbox([*list(random_toolbox())[::6], invert])
    other = with_backend(own, backend)
    assert other.names == own.names
    assert other[2] is invert
    assert [tool.backend for tool in other if isinstance(tool, NetworkTool)] == [backend] * 2
    assert [tool.backend for tool in own if isinstance(tool, NetworkTool)] == [DEFAULT_BACKEND] * 2
    images, actions = torch.rand(9, 3, 21, 21), np.arange(9) % 4
    torch.testing.assert_close(
        other.apply(images, actions), with_backend(own, "eager").apply(images, actions), rtol=0, atol=TOLERANCE
    )


def test_environments_take_a_backend(backend: str) -> None:
    images = photographs(2)
    rewards = []
    for chosen in ("eager", backend):
        envs = ImageRestoreVectorEnv(3, images=images, toolbox=random_toolbox(), backend=chosen)
        envs.reset(seed=1)
        rewards.append(envs.step(np.array([0, 5, 0]))[1])
        assert {tool.backend for tool in envs.toolbox if isinstance(tool, NetworkTool)} == {chosen}
        envs.close()
    np.testing.assert_allclose(rewards[0], rewards[1], atol=1e-3)


def test_shipped_toolboxes_take_a_backend() -> None:
    for chosen, toolbox in (("eager", load_toolbox("classic", backend="eager")), (DEFAULT_BACKEND, load_toolbox())):
        assert all(isinstance(tool, NetworkTool) and tool.backend == chosen for tool in toolbox)
    assert not BACKENDS[DEFAULT_BACKEND].extra


BAD_USES = [
    pytest.param(check_backend, id="check"),
    pytest.param(lambda name: load_toolbox(backend=name), id="load"),
    pytest.param(lambda name: with_backend(random_toolbox(), name), id="toolbox"),
    pytest.param(lambda name: task_toolbox(Task(toolbox=random_toolbox(), backend=name)), id="task"),
]


@pytest.mark.parametrize("use", BAD_USES)
def test_unknown_backends_are_refused(use: Any) -> None:
    with pytest.raises(BackendError, match=r"^unknown backend 'tpu': choose from torch, eager, ncnn$"):
        use("tpu")


@pytest.mark.parametrize("use", BAD_USES)
def test_a_missing_package_is_named_with_its_extra(use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    with pytest.raises(
        BackendError, match=r"^backend 'ncnn' needs ncnn, which .*: pip install 'imagerestore\[ncnn\]'$"
    ):
        use("ncnn")


def test_on_other_devices_pytorch_runs_the_tools_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tools_zoo.backends.network_tool.BACKENDS",
        {**BACKENDS, "cpu_only": replace(BACKENDS["eager"], extra="plots")},
    )
    images = torch.rand(2, 3, 9, 9, device="meta")
    with pytest.warns(RuntimeWarning, match="backend 'cpu_only' runs on the CPU alone: on meta PyTorch"):
        assert tool_of("three_layer", "cpu_only").to("meta")(images).shape == images.shape
    assert tool_of("three_layer", "torch").to("meta")(images).shape == images.shape  # nothing to say


@pytest.mark.parametrize("kernel", [(1, 2), (3, 3), (4, 5), (9, 9)])
@pytest.mark.parametrize("padding", [(0, 0), (1, 1), (2, 4)])
def test_a_convolution_in_blocks_is_the_convolution(kernel: tuple[int, int], padding: tuple[int, int]) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(5, 3, kernel, padding=padding, bias=kernel != (3, 3)).double().requires_grad_(False)
    for height, width in ((9, 9), (10, 13), (17, 12)):
        features = torch.rand(2, 5, height, width, dtype=torch.float64)
        torch.testing.assert_close(BlockConvolution(layer)(features), layer(features), rtol=0, atol=1e-12)


def test_folding_leaves_the_network_alone_and_reaches_its_last_layer() -> None:
    network = EightLayer()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    twin = fold(network)
    assert isinstance(twin.get_submodule("tail"), BlockConvolution)
    assert isinstance(network.tail, nn.Conv2d)
    assert network.training
    assert network.squeeze.dilation == (1, 1)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("toolbox", [*toolbox_names(), "super-resolvers"])
def test_every_shipped_tool_rounds_alike_at_all_batch_sizes_and_numbers_of_threads(toolbox: str) -> None:
    tools = super_resolvers() if toolbox == "super-resolvers" else load_toolbox(toolbox)
    images, threads = torch.rand(8, 3, 63, 63), torch.get_num_threads()
    with torch.inference_mode():
        for tool in tools:
            expected = tool(images)[:1]
            for count, size in itertools.product((1, 2), (1, 2, 3, 8)):
                torch.set_num_threads(count)
                assert torch.equal(tool(images[:size])[:1], expected), (tool.name, count, size)
    torch.set_num_threads(threads)


def test_pieces_hold_so_many_pixels() -> None:
    sizes = []

    def double(images: Tensor) -> Tensor:
        sizes.append(len(images))
        return images * 2

    images = torch.rand(10, 3, 8, 8)
    assert torch.equal(piecewise(Computing(double), images, pixels=200), images * 2)
    assert torch.equal(piecewise(Computing(double), images[:2], pixels=1), images[:2] * 2)
    assert sizes == [3, 3, 3, 1, 1, 1]


def test_results_too_far_from_pytorchs_are_refused() -> None:
    network = network_of("three_layer")
    assert check_parity(network, network, "mine") == 0
    with pytest.raises(ParityError, match=r"mine: differs from PyTorch by 0\.0001, more than 1e-05"):
        check_parity(network, lambda images: network(images) + 1e-4, "mine")
    with pytest.raises(ParityError, match="differs from PyTorch by nan"):
        check_parity(network, lambda images: network(images) * float("nan"), "mine")
    with pytest.raises(ParityError, match="mine: returns"):
        check_parity(network, lambda images: network(images)[:, :, 1:], "mine")
