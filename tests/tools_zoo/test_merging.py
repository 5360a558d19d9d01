"""Convolutions that are a sum of several in training and one afterwards."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tools_zoo.backends.folding import fold
from tools_zoo.merging import MergedConvolution, merge

pytestmark = pytest.mark.usefixtures("one_thread")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(MergedConvolution(3, 8), nn.ReLU(), nn.Sequential(MergedConvolution(8, 5, stride=2)))


def test_a_merged_convolution_is_a_convolution_plus_a_wide_and_a_narrow_one() -> None:
    layer = MergedConvolution(4, 6, expansion=3)
    features = torch.rand(2, 4, 9, 7)
    assert layer.wide.shape == (18, 4, 3, 3)
    own = nn.functional.conv2d(features, layer.weight, layer.bias, padding=1)
    wide = nn.functional.conv2d(features, layer.wide, padding=1)
    both = own + nn.functional.conv2d(wide, layer.narrow[..., None, None])
    torch.testing.assert_close(layer(features), both, rtol=0, atol=1e-5)


@pytest.mark.parametrize("simplify", [merge, fold])
def test_merging_gives_a_copy_of_plain_convolutions(simplify: object) -> None:
    whole, images = network(), torch.rand(2, 3, 12, 10)
    simple = simplify(whole)  # type: ignore[operator]
    torch.testing.assert_close(simple(images), whole(images), rtol=0, atol=1e-5)
    assert not any(isinstance(layer, MergedConvolution) for layer in simple.modules())
    assert sum(isinstance(layer, MergedConvolution) for layer in whole.modules()) == 2


def test_all_parts_learn() -> None:
    whole = network()
    whole(torch.rand(1, 3, 8, 8)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in whole.parameters())
