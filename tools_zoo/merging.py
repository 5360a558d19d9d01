"""3x3 convolutions that are a sum of several in training and one afterwards (structural reparameterisation).

Source: Ding et al., "RepVGG", CVPR 2021; Bhardwaj et al., "Collapsible Linear Blocks for Super-Efficient Super
Resolution" (SESR), MLSys 2022, which sums kernels, not feature maps, so that training costs hardly more.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Network = TypeVar("Network", bound=nn.Module)


class MergedConvolution(nn.Conv2d):
    """A 3x3 convolution whose kernel is its own plus that of a wider 3x3 convolution followed by a 1x1.

    Args:
        inputs: channels.
        outputs: channels.
        stride: of the convolution; it is padded with zeros.
        expansion: how many times more channels than outputs the wider convolution has.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, expansion: int = 2) -> None:
        super().__init__(inputs, outputs, 3, stride, padding=1)
        self.wide = nn.Parameter(nn.Conv2d(inputs, expansion * outputs, 3).weight.detach())
        self.narrow = nn.Parameter(nn.Conv2d(expansion * outputs, outputs, 1).weight.detach().flatten(1))

    def kernel(self) -> Tensor:
        """The sum of both kernels, ``(outputs, inputs, 3, 3)``."""
        return self.weight + (self.narrow @ self.wide.flatten(1)).view_as(self.weight)

    def forward(self, features: Tensor) -> Tensor:
        """Convolve ``(N, C, H, W)``."""
        return F.conv2d(features, self.kernel(), self.bias, self.stride[0], padding=1)

    def merged(self) -> nn.Conv2d:
        """A plain convolution of the same outputs but for rounding."""
        plain = nn.Conv2d(self.in_channels, self.out_channels, 3, self.stride[0], padding=1)
        assert plain.bias is not None
        assert self.bias is not None
        with torch.no_grad():
            plain.weight.copy_(self.kernel())
            plain.bias.copy_(self.bias)
        return plain


def merge(network: Network) -> Network:
    """A copy of a network with plain convolutions in place of its :class:`MergedConvolution`."""
    twin = copy.deepcopy(network)
    for parent in list(twin.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, MergedConvolution):
                setattr(parent, name, child.merged().to(child.weight.device).train(child.training))
    return twin
