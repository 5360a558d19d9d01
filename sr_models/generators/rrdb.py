"""RRDBNet, the generator used with SeD: residual-in-residual dense blocks.

Source: Wang et al., "ESRGAN", ECCV workshops 2018, section 3.1; Li et al., CVPR 2024.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore_env.toolbox import bicubic_upscale
from sr_models.complexity import macs_per_pixel

RESIDUAL_SCALE = 0.2
_LAYERS = 5


class DenseBlock(nn.Module):
    """Five 3x3 convolutions, each fed by all before it; 0.2 of the last output is added to the input."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        widths = [growth] * (_LAYERS - 1) + [channels]
        self.convs = nn.ModuleList(
            [nn.Conv2d(channels + number * growth, width, 3, padding=1) for number, width in enumerate(widths)]
        )

    def forward(self, features: Tensor) -> Tensor:
        """Refine ``(N, C, H, W)``."""
        stack = features
        for conv in self.convs[:-1]:
            stack = torch.cat([stack, F.leaky_relu(conv(stack), 0.2)], dim=1)
        refined: Tensor = features + RESIDUAL_SCALE * self.convs[-1](stack)
        return refined


class ResidualDenseBlocks(nn.ModuleList):
    """RRDB: three dense blocks; 0.2 of their residual is added to the input."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__(DenseBlock(channels, growth) for _ in range(3))

    def forward(self, features: Tensor) -> Tensor:
        """Refine ``(N, C, H, W)``."""
        inner = features
        for block in self:
            inner = block(inner)
        refined: Tensor = features + RESIDUAL_SCALE * (inner - features)
        return refined


class RRDBNet(nn.Module):
    """Conv, RRDBs with a skip around them, two steps of nearest x2 and conv, two convs: added to the bicubic image.

    The published one has no bicubic path, and 23 blocks of 64 channels that grow by 32 (16.7 M parameters).

    Args:
        channels: width.
        growth: channels that each convolution of a dense block adds.
        blocks: RRDBs.
    """

    takes_maps = False

    def __init__(self, channels: int = 64, growth: int = 32, blocks: int = 23) -> None:
        super().__init__()
        self.receptive_radius = 15 * blocks + 6
        self.head = nn.Conv2d(3, channels, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualDenseBlocks(channels, growth) for _ in range(blocks)))
        self.join = nn.Conv2d(channels, channels, 3, padding=1)
        self.up1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.up2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.last = nn.Conv2d(channels, channels, 3, padding=1)
        self.tail = nn.Conv2d(channels, 3, 3, padding=1)
        for parameter in self.tail.parameters():
            nn.init.zeros_(parameter)
        for block in self.blocks.modules():
            if isinstance(block, nn.Conv2d):  # ESRGAN, supplement: smaller initial weights
                block.weight.data.mul_(0.1)
        self.macs_per_pixel = macs_per_pixel(self, torch.zeros(1, 3, 8, 8))
        """Per pixel of the input."""

    def forward(self, images: Tensor) -> Tensor:
        """Upscale ``(N, 3, H, W)`` float RGB in [0, 1] to ``(N, 3, 4H, 4W)``, neither clipped nor rounded."""
        first = self.head(images)
        features = first + self.join(self.blocks(first))
        features = F.leaky_relu(self.up1(F.interpolate(features, scale_factor=2, mode="nearest")), 0.2)
        features = F.leaky_relu(self.up2(F.interpolate(features, scale_factor=2, mode="nearest")), 0.2)
        upscaled: Tensor = bicubic_upscale(images) + self.tail(F.leaky_relu(self.last(features), 0.2))
        return upscaled
