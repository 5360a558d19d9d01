"""Optimization of networks for CPUs: batches in pieces, channels last, convolutions that fill vector registers."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore_env.compute.worker_pool import PIECE_PIXELS
from tools_zoo.merging import merge

Network = TypeVar("Network", bound=nn.Module)

_BLOCK = 2
_NARROW = 4  # output channels; vector units work on 8 or 16 at a time, and idle for the rest

_SMALL = 20480  # numbers in a batch of one image for which PyTorch takes its own kernel


class BlockConvolution(nn.Module):
    """A convolution with few output channels, four pixels at a time.

    The four pixels of a 2x2 block become channels: one convolution of stride 2, whose kernel is one pixel larger and
    holds the original four times, each shifted by a pixel; then pixel-shuffle. The sums are the same, with zeros added.
    Of 16 lanes that a CPU computes at a time, 12 are then used for 3 output channels, not 3.

    Args:
        convolution: of stride 1, without dilation and groups, padded with zeros.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        weight, bias = convolution.weight.detach(), convolution.bias
        outputs, inputs, height, width = weight.shape
        blocks = weight.new_zeros(outputs, _BLOCK, _BLOCK, inputs, height + _BLOCK - 1, width + _BLOCK - 1)
        for row in range(_BLOCK):
            for column in range(_BLOCK):
                blocks[:, row, column, :, row : row + height, column : column + width] = weight
        self.register_buffer("weight", blocks.flatten(0, 2))
        self.register_buffer("bias", None if bias is None else bias.detach().repeat_interleave(_BLOCK**2))
        above, left = (int(padding) for padding in convolution.padding)
        # one more pixel around the image completes the last block of an odd height or width; it is cut away again
        self.padding = (above + _BLOCK - 1, left + _BLOCK - 1)
        self.grows = (2 * above - height + 1, 2 * left - width + 1)

    def forward(self, features: Tensor) -> Tensor:
        """Convolve ``(N, C, H, W)``."""
        height, width = features.shape[-2] + self.grows[0], features.shape[-1] + self.grows[1]
        blocks = F.conv2d(features, self.weight, self.bias, _BLOCK, self.padding)  # type: ignore[arg-type]
        first = _BLOCK - 1
        return F.pixel_shuffle(blocks, _BLOCK)[..., first : first + height, first : first + width]


class SteadyConvolution(nn.Conv2d):
    """A convolution that a CPU rounds alike at every batch size and number of threads.

    PyTorch leaves convolutions to oneDNN, but for those of one pixel on one thread and those of a small image in a
    batch of its own, which its own kernels round differently (and compute more slowly).
    """

    def forward(self, features: Tensor) -> Tensor:
        """Convolve ``(N, C, H, W)``."""
        if not features.is_cpu:
            return super().forward(features)
        dilation = (2, 2) if self.kernel_size == (1, 1) else self.dilation  # means nothing for one pixel
        alone = len(features) == 1 and features.numel() <= _SMALL
        batch = torch.cat([features, features]) if alone else features
        outputs = F.conv2d(batch, self.weight, self.bias, self.stride, self.padding, dilation, self.groups)
        return outputs[:1] if alone else outputs


def steady(network: Network) -> Network:
    """Make a network's convolutions :class:`SteadyConvolution`, in place; return the network."""
    for module in network.modules():
        if type(module) is nn.Conv2d and module.padding_mode == "zeros":
            module.__class__ = SteadyConvolution
    return network


def fold(network: nn.Module) -> nn.Module:
    """A copy of a network for inference on a CPU, of the same outputs but for rounding.

    Merged convolutions become plain ones; convolutions with few outputs :class:`BlockConvolution`, others
    :class:`SteadyConvolution`; weights are channels last.

    Args:
        network: any; it stays as it is.
    """
    twin = steady(merge(network).eval().requires_grad_(False))
    for parent in list(twin.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, SteadyConvolution) and _is_narrow(child):
                setattr(parent, name, BlockConvolution(child))
    return twin.to(memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]


def _is_narrow(layer: nn.Conv2d) -> bool:
    plain = layer.stride == (1, 1) and layer.dilation == (1, 1) and layer.groups == 1
    wide = layer.kernel_size != (1, 1) and not isinstance(layer.padding, str)
    return plain and wide and layer.out_channels <= _NARROW


def piecewise(network: nn.Module, images: Tensor, pixels: int = PIECE_PIXELS) -> Tensor:
    """Run a batch ``(N, 3, H, W)`` in pieces of about ``pixels`` pixels, one image or more at a time."""
    size = max(1, pixels // max(1, images.shape[-2] * images.shape[-1]))
    if len(images) <= size:
        return network(images)  # type: ignore[no-any-return]
    return torch.cat([network(piece) for piece in torch.split(images, size)])
