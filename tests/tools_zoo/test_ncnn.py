from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.support.networks import TOLERANCE, Computing, network_of, tool_of
from tools_zoo import load_toolbox
from tools_zoo.backends.ncnn_models import ncnn_model, ncnn_runner
from tools_zoo.backends.network_tool import BackendError, NetworkTool, check_runs_on
from tools_zoo.backends.parity import ParityError, photograph_like

pytest.importorskip("ncnn", reason="needs the extra ncnn")
pytestmark = pytest.mark.usefixtures("one_thread")

_CONSTANT, _WEIGHT = torch.rand(1), torch.rand(3, 3, 3, 3)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_batches_are_spread_over_threads_and_lone_images_within(count: int) -> None:
    tool, reference = tool_of("hourglass_48", "ncnn"), network_of("hourglass_48")
    images = torch.rand(count, 3, 37, 42)
    torch.set_num_threads(2)  # the fixture sets it back
    torch.testing.assert_close(tool(images), reference(images), rtol=0, atol=TOLERANCE)
    torch.set_num_threads(1)
    torch.testing.assert_close(tool(images), reference(images), rtol=0, atol=TOLERANCE)


def test_it_is_for_the_cpu_alone() -> None:
    check_runs_on("ncnn", "cpu")
    check_runs_on("torch", "cuda:1")
    with pytest.raises(BackendError, match=r"^backend 'ncnn' runs on the CPU alone, not on cuda:1$"):
        check_runs_on("ncnn", "cuda:1")


def test_the_default_tools_give_what_pytorch_gives() -> None:
    toolbox = load_toolbox("default", backend="ncnn")
    patches = photograph_like(3, 63, 63, torch.Generator().manual_seed(1))
    for tool in toolbox:
        assert isinstance(tool, NetworkTool)
        torch.testing.assert_close(tool(patches), tool.network(patches), rtol=0, atol=TOLERANCE)


def test_results_with_several_users_and_changes_in_place() -> None:
    class Tangle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Conv2d(3, 4, (3, 1), padding=(1, 0))
            self.other = nn.Conv2d(4, 12, (1, 5), stride=2, padding=(0, 2), bias=False)
            self.fine = nn.Conv2d(3, 12, 1)
            self.last = nn.Conv2d(3, 3, 3, padding=2, dilation=2)

        def forward(self, images: Tensor) -> Tensor:
            features = self.one(images)
            kept = features * 0.5 + features
            positive = F.relu_(features)
            change = F.pixel_shuffle(self.other(positive + kept * features), 2)
            means = F.avg_pool2d(change, (3, 1), 1, (1, 0)) + F.avg_pool2d(change, (1, 5), 1, (0, 2), False, False)
            small = F.avg_pool2d(images, 2)
            fine = F.pixel_shuffle(self.fine(small) + F.pixel_unshuffle(images, 2), 2)
            return F.relu(self.last(images + means * images + fine))

    layer = nn.Conv2d(3, 3, 3, padding=1).requires_grad_(False)

    def unused_relu(images: Tensor) -> Tensor:
        features: Tensor = layer(images)
        F.relu(features)
        return features

    torch.manual_seed(0)
    network = Tangle().eval().requires_grad_(False)
    model = ncnn_model(network)
    assert model.layers.count(" 9=1") == 1  # the last ReLU goes into its convolution, the first cannot
    images = torch.rand(2, 3, 16, 22)
    for one in (network, Computing(unused_relu)):
        torch.testing.assert_close(ncnn_runner(ncnn_model(one))(images), one(images), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        (nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Sigmoid()), "aten.sigmoid.default"),
        (nn.Conv2d(3, 3, 3, padding=1, groups=3), "a convolution in groups"),
        (nn.ConvTranspose2d(3, 3, 3, padding=1), "transposed"),
        (nn.AvgPool2d(3, 1, 1, ceil_mode=True), "rounded up"),
        (nn.AvgPool2d(3, 1, 1, divisor_override=2), "a divisor"),
        (Computing(lambda images: torch.add(images, images, alpha=2)), "aten.add.Tensor alpha"),
        (Computing(lambda images: images * torch.ones(1)), "aten.ones.default"),
        (Computing(lambda images: images + _CONSTANT), "what is not computed from the image"),
        (Computing(lambda images: F.conv2d(images, _WEIGHT * 2, padding=1)), "what is not computed from the image"),
        (Computing(lambda images: (F.relu_(images[:, :, :64]), images)[1]), "an in-place change of a result"),
        (Computing(lambda images: images if float(images.sum()) > 0 else -images), "aten.sum.default"),
    ],
)
def test_what_it_does_not_know_is_named(layers: nn.Module, reason: str) -> None:
    tool = NetworkTool("mine", layers.eval().requires_grad_(False), 1.0, 4, "ncnn")
    with pytest.raises(ParityError, match=rf"^\w+ cannot be converted to ncnn: nothing stands for .*{reason}"):
        tool(torch.rand(1, 3, 8, 8))


def test_results_that_are_no_image_are_refused() -> None:
    with pytest.raises(ParityError, match=r"^Computing cannot be converted to ncnn: its result is not one tensor"):
        ncnn_model(Computing(lambda images: (images + 1, images)))
    halving = NetworkTool("halving", Computing(lambda images: F.pixel_unshuffle(images, 2)).eval(), 1.0, 2, "ncnn")
    with pytest.raises(
        ParityError, match=r"^Computing by ncnn: no result for images \(1, 3, 63, 63\): pixel_unshuffle"
    ):
        halving(torch.rand(1, 3, 8, 8))


def test_it_does_not_matter_when_a_network_is_converted() -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 3, padding="same"), nn.Dropout(), nn.ReLU()).eval()
    expected = ncnn_model(network)
    with torch.inference_mode():
        assert ncnn_model(network) == expected
    with ThreadPoolExecutor(4) as pool:
        assert all(model == expected for model in pool.map(ncnn_model, [network] * 12))
    torch.set_default_dtype(torch.float64)
    try:
        assert ncnn_model(network) == expected
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_network_of_other_results_for_odd_sizes_is_refused() -> None:
    class Even(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images + (1.0 if images.shape[-1] % 2 else 0.0)

    tool = NetworkTool("even", Even().eval(), 1.0, 0, "ncnn")
    with pytest.raises(ParityError, match=r"^Even by ncnn: differs from PyTorch by 1"):
        tool(torch.rand(1, 3, 8, 8))
