"""LightNet: a x4 generator for few operations, with or without semantic maps; both super-resolvers can use it.

Residual blocks of plain 3x3 convolutions, all at low resolution, then one pixel-shuffle by 4. In training each
convolution is a sum (:mod:`tools_zoo.merging`). Sources: Lim et al., "Enhanced Deep Residual Networks for Single Image
Super-Resolution" (EDSR), CVPR workshops 2017; the SFT layers, Wang et al., CVPR 2018, section 3.2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore_env.toolbox import bicubic_upscale
from sr_models.complexity import macs_per_pixel
from sr_models.generators import UPSCALE
from sr_models.prior.categories import CATEGORIES
from tools_zoo.merging import MergedConvolution, merge
from tools_zoo.networks import zeroed

CONDITION_CHANNELS = 16
SLOPE = 0.1
"""Of leaky ReLUs. Features are small: an activation that is nearly linear there, such as SiLU, learns nothing more."""


class ResidualBlock(nn.Module):
    """``x`` plus two 3x3 convolutions of ``x`` with a leaky ReLU between."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = MergedConvolution(channels, channels)
        self.conv2 = MergedConvolution(channels, channels)
        for parameter in (self.conv2.weight, self.conv2.narrow):  # every block starts near the identity
            parameter.data.mul_(0.1)

    def forward(self, features: Tensor) -> Tensor:
        """Refine ``(N, C, H, W)``."""
        refined: Tensor = features + self.conv2(F.leaky_relu(self.conv1(features), SLOPE))
        return refined


class Modulation(nn.Module):
    """SFT by one 1x1 convolution: features times ``1 + gamma`` plus ``beta``. It starts as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer = zeroed(nn.Conv2d(CONDITION_CHANNELS, 2 * channels, 1))

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """Scale and shift features ``(N, C, H, W)`` by a condition ``(N, 16, H, W)``."""
        gamma, beta = self.layer(condition).chunk(2, dim=1)
        modulated: Tensor = features * (1 + gamma) + beta
        return modulated


class LightNet(nn.Module):
    """Conv to ``channels``, residual blocks, conv, a skip around them, conv to 48, pixel-shuffle by 4.

    The result is added to the bicubically upscaled input. With maps, every second block's input is modulated by them.

    Args:
        channels: width.
        blocks: residual blocks.
        takes_maps: whether it has SFT layers.
    """

    def __init__(self, channels: int = 48, blocks: int = 8, takes_maps: bool = False) -> None:
        super().__init__()
        self.takes_maps = takes_maps
        self.receptive_radius = 2 * blocks + 3
        self.head = nn.Conv2d(3, channels, 3, padding=1)
        self.blocks = nn.ModuleList([ResidualBlock(channels) for _ in range(blocks)])
        self.join = MergedConvolution(channels, channels)
        self.tail = zeroed(nn.Conv2d(channels, 3 * UPSCALE**2, 3, padding=1))
        arguments = [torch.zeros(1, 3, 8, 8)]
        if takes_maps:
            self.condition = nn.Sequential(
                nn.Conv2d(len(CATEGORIES), 2 * CONDITION_CHANNELS, 1),
                nn.LeakyReLU(SLOPE),
                nn.Conv2d(2 * CONDITION_CHANNELS, CONDITION_CHANNELS, 1),
                nn.LeakyReLU(SLOPE),
            )
            self.condition_layers = nn.ModuleList([Modulation(channels) for _ in range(0, blocks, 2)])
            arguments.append(torch.zeros(1, len(CATEGORIES), 8 * UPSCALE, 8 * UPSCALE))
        self.macs_per_pixel = macs_per_pixel(merge(self), *arguments)
        """Per pixel of the input, with merged convolutions."""

    def forward(self, images: Tensor, maps: Tensor | None = None) -> Tensor:
        """Upscale ``(N, 3, H, W)`` float RGB in [0, 1] to ``(N, 3, 4H, 4W)``, neither clipped nor rounded.

        ``maps`` are the probabilities of the categories ``(N, 8, 4H, 4W)``, for a network that takes them.
        """
        condition = self.condition(F.avg_pool2d(maps, UPSCALE)) if self.takes_maps and maps is not None else None
        first = self.head(images)
        features = first
        for number, block in enumerate(self.blocks):
            if condition is not None and number % 2 == 0:
                features = self.condition_layers[number // 2](features, condition)
            features = block(features)
        features = first + self.join(features)
        upscaled: Tensor = bicubic_upscale(images) + F.pixel_shuffle(self.tail(features), UPSCALE)
        return upscaled
