from __future__ import annotations

import copy
import importlib.util
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore_env import FunctionTool, ImageRestoreVectorEnv, Task, Toolbox
from tests.toolkit import photographs, random_toolbox
from tools_zoo import load_toolbox
from tools_zoo.backends import BACKENDS, DEFAULT_BACKEND, BackendError, NetworkTool, check_backend, with_backend
from tools_zoo.folding import BlockConvolution, fold, piecewise
from tools_zoo.ncnn_models import ncnn_model, ncnn_runner
from tools_zoo.networks import NETWORKS, EightLayer
from tools_zoo.onnx_models import onnx_model
from tools_zoo.parity import ParityError, check_parity

pytestmark = pytest.mark.usefixtures("one_thread")
TOLERANCE = 1e-5


class OtherLayers(nn.Module):
    """A network of other layers than the shipped ones: strided, transposed and grouped convolutions, and a skip."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 8, 3, padding="same", padding_mode="reflect")
        self.down = nn.Conv2d(8, 16, 4, stride=2, padding=1)
        self.deep = nn.Conv2d(16, 16, 3, padding=2, dilation=2, groups=2)
        self.up = nn.ConvTranspose2d(16, 8, 4, stride=2, padding=1)
        self.mix = nn.Conv2d(16, 12, 1, bias=False)
        self.leave = nn.Conv2d(12, 3, (3, 5), padding=(1, 2), bias=False)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        shallow = F.relu(self.enter(F.pad(images, (0, width % 2, 0, height % 2), mode="replicate")))
        deep = F.relu(self.up(F.relu(self.deep(F.relu(self.down(shallow))))))
        change: Tensor = self.leave(self.mix(torch.cat([shallow, deep], dim=1)))
        return images + change[..., :height, :width]


class Sorter(nn.Module):
    """A network whose layers depend on the values."""

    def forward(self, images: Tensor) -> Tensor:
        return images if float(images.sum()) > 0 else -images


def network_of(name: str) -> nn.Module:
    torch.manual_seed(0)
    network = OtherLayers() if name == "other_layers" else NETWORKS[name]()
    return network.eval().requires_grad_(False)


def tool_of(name: str, backend: str) -> NetworkTool:
    return NetworkTool(name, network_of(name), macs_per_pixel=1.0, reach=20, backend=backend)


@pytest.fixture(params=list(BACKENDS))
def backend(request: pytest.FixtureRequest) -> str:
    """Each backend that can be used here."""
    name = str(request.param)
    missing = BACKENDS[name].missing
    if missing is not None:
        pytest.skip(f"backend {name!r} needs {missing}: pip install imagerestore[{BACKENDS[name].extra}]")
    return name


@pytest.fixture
def no_converters(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nothing beyond the package's own dependencies were installed."""
    found = importlib.util.find_spec

    def find(name: str, *arguments: Any) -> Any:
        return None if name in {"ncnn", "onnx", "onnxscript", "onnxruntime", "openvino"} else found(name, *arguments)

    monkeypatch.setattr(importlib.util, "find_spec", find)


@pytest.mark.parametrize("network", ["three_layer", "eight_layer", "hourglass_32", "other_layers"])
def test_every_backend_gives_what_pytorch_gives_for_every_batch_and_size(network: str, backend: str) -> None:
    if (network, backend) == ("other_layers", "ncnn"):
        pytest.skip("ncnn is told of the layers of the shipped networks alone")
    tool = tool_of(network, backend)
    reference = network_of(network)
    for shape in ((1, 63, 63), (13, 63, 63), (2, 64, 48), (3, 17, 30), (1, 31, 90), (5, 63, 63), (1, 8, 9)):
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


def test_copies_and_pickles_run_alike_and_apart(backend: str) -> None:
    tool = tool_of("hourglass_32", backend)
    images = torch.rand(2, 3, 21, 22)
    expected = tool(images)
    copies = [copy.deepcopy(tool), pickle.loads(pickle.dumps(tool))]
    assert len(pickle.dumps(tool)) < 1.2 * len(pickle.dumps(tool_of("hourglass_32", backend)))
    for other in copies:
        assert (other.name, other.backend, other.reach) == (tool.name, backend, tool.reach)
        torch.testing.assert_close(other(images), expected, rtol=0, atol=TOLERANCE)
        for weight in other.network.parameters():
            weight.zero_()
        torch.testing.assert_close(other(images), images, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(tool(images), expected, rtol=0, atol=TOLERANCE)


def test_weights_that_change_are_noticed(backend: str) -> None:
    tool = tool_of("three_layer", backend)
    images = torch.rand(1, 3, 20, 20)
    tool(images)
    torch.manual_seed(5)
    other = NETWORKS["three_layer"]().eval().requires_grad_(False)
    tool.network.load_state_dict(other.state_dict())
    torch.testing.assert_close(tool(images), other(images), rtol=0, atol=TOLERANCE)


def test_several_threads_may_call_a_tool(backend: str) -> None:
    tool, reference = tool_of("three_layer", backend), network_of("three_layer")
    batches = [torch.rand(1 + number % 3, 3, 24 + number, 30) for number in range(16)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(tool, batches))
    for images, outputs in zip(batches, results, strict=True):
        torch.testing.assert_close(outputs, reference(images), rtol=0, atol=TOLERANCE)


def test_results_outlive_the_next_call(backend: str) -> None:
    tool = tool_of("three_layer", backend)
    first = tool(torch.zeros(1, 3, 16, 16))
    kept = first.clone()
    tool(torch.ones(1, 3, 16, 16))
    assert torch.equal(first, kept)


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


def test_a_backend_is_no_part_of_the_weights(backend: str) -> None:
    tool = tool_of("three_layer", backend)
    names = list(tool.state_dict())
    tool(torch.rand(1, 3, 12, 12))
    assert list(tool.state_dict()) == names == [f"network.{name}" for name in network_of("three_layer").state_dict()]


def test_tools_loaded_and_first_called_in_inference_mode(backend: str) -> None:
    with torch.inference_mode():
        tool = tool_of("hourglass_32", backend)
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


def test_gym_make_takes_a_backend() -> None:
    env: Any = gym.make("ImageRestore-v0", images=photographs(1), upscale=(1,), backend="eager")
    assert {tool.backend for tool in env.unwrapped.toolbox} == {"eager"}
    env.close()


def test_shipped_toolboxes_take_a_backend() -> None:
    assert {tool.backend for tool in load_toolbox("classic", backend="eager") if isinstance(tool, NetworkTool)} == {
        "eager"
    }
    assert all(tool.backend == DEFAULT_BACKEND for tool in load_toolbox() if isinstance(tool, NetworkTool))
    assert not BACKENDS[DEFAULT_BACKEND].packages


BAD_USES = [
    pytest.param(check_backend, id="check"),
    pytest.param(lambda name: load_toolbox(backend=name), id="load"),
    pytest.param(lambda name: with_backend(random_toolbox(), name), id="toolbox"),
    pytest.param(lambda name: Task(toolbox=random_toolbox(), backend=name), id="task"),
]


@pytest.mark.parametrize("use", BAD_USES)
def test_unknown_backends_are_refused(use: Any) -> None:
    with pytest.raises(BackendError, match=r"^unknown backend 'tpu': choose from torch, eager, ncnn, onnx, openvino$"):
        use("tpu")


@pytest.mark.usefixtures("no_converters")
@pytest.mark.parametrize("name", ["ncnn", "onnx", "openvino"])
@pytest.mark.parametrize("use", BAD_USES)
def test_a_missing_package_is_named_with_its_extra(use: Any, name: str) -> None:
    with pytest.raises(
        BackendError, match=rf"^backend '{name}' needs \w+, which .*: pip install imagerestore\[{name}\]$"
    ):
        use(name)


def test_elsewhere_than_on_the_cpu_pytorch_runs_the_tools_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tools_zoo.backends.BACKENDS", {**BACKENDS, "onnx": replace(BACKENDS["eager"], any_device=False)}
    )
    images = torch.rand(2, 3, 9, 9, device="meta")
    with pytest.warns(RuntimeWarning, match="backend 'onnx' runs on the CPU alone: on meta it is PyTorch"):
        assert tool_of("three_layer", "onnx").to("meta")(images).shape == images.shape
    assert tool_of("three_layer", "torch").to("meta")(images).shape == images.shape  # nothing to say


class TestNcnn:
    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("ncnn", reason="needs the extra ncnn")

    @pytest.mark.parametrize("count", [1, 2, 7])
    def test_batches_are_spread_over_threads_and_lone_images_within(self, count: int) -> None:
        tool, reference = tool_of("hourglass_48", "ncnn"), network_of("hourglass_48")
        images = torch.rand(count, 3, 37, 42)
        torch.set_num_threads(2)  # the fixture sets it back
        torch.testing.assert_close(tool(images), reference(images), rtol=0, atol=TOLERANCE)
        torch.set_num_threads(1)
        torch.testing.assert_close(tool(images), reference(images), rtol=0, atol=TOLERANCE)

    def test_results_with_several_users_and_changes_in_place(self) -> None:
        class Tangle(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.one = nn.Conv2d(3, 4, (3, 1), padding=(1, 0))
                self.other = nn.Conv2d(4, 12, (1, 5), stride=2, padding=(0, 2), dilation=(1, 1), bias=False)

            def forward(self, images: Tensor) -> Tensor:
                features = self.one(images)
                kept = features * 0.5 + features
                positive = F.relu_(features)
                change = F.pixel_shuffle(self.other(positive + kept * features), 2)
                return images + F.avg_pool2d(change, (3, 1), 1, (1, 0)) * images

        torch.manual_seed(0)
        network = Tangle().eval().requires_grad_(False)
        runner = ncnn_runner(ncnn_model(network))
        images = torch.rand(2, 3, 16, 22)
        torch.testing.assert_close(runner(images), network(images), rtol=0, atol=TOLERANCE)

    def test_what_it_does_not_know_is_named(self) -> None:
        for network, reason in (
            (nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Sigmoid()), "aten.sigmoid.default"),
            (nn.Conv2d(3, 3, 3, padding=1, groups=3), "in groups"),
            (nn.AvgPool2d(3, 1, 1, ceil_mode=True), "rounded up"),
            (Sorter(), "."),
        ):
            tool = NetworkTool("mine", network.eval().requires_grad_(False), 1.0, 4, "ncnn")
            with pytest.raises(ParityError, match=rf"^\w+ cannot be converted to ncnn: .*{reason}"):
                tool(torch.rand(1, 3, 8, 8))

    def test_a_network_of_other_results_for_odd_sizes_is_refused(self) -> None:
        class Even(nn.Module):
            def forward(self, images: Tensor) -> Tensor:
                return images + (1.0 if images.shape[-1] % 2 else 0.0)

        tool = NetworkTool("even", Even().eval(), 1.0, 0, "ncnn")
        with pytest.raises(ParityError, match=r"^ncnn: differs from PyTorch by 1"):
            tool(torch.rand(1, 3, 8, 8))


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


def test_pieces_hold_so_many_pixels() -> None:
    sizes = []

    class Watch(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            sizes.append(len(images))
            return images * 2

    images = torch.rand(10, 3, 8, 8)
    assert torch.equal(piecewise(Watch(), images, pixels=200), images * 2)
    assert torch.equal(piecewise(Watch(), images[:2], pixels=1), images[:2] * 2)
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


def test_a_network_that_cannot_be_converted_is_named() -> None:
    pytest.importorskip("onnx", reason="needs the extra onnx")
    pytest.importorskip("onnxscript", reason="needs the extra onnx")

    with pytest.raises(ParityError, match=r"^Sorter cannot be converted to ONNX: "):
        onnx_model(Sorter())
