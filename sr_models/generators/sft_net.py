"""SFT-Net: the generator of SFT-GAN, a residual x4 super-resolver conditioned on semantic maps.

Source: Wang et al., CVPR 2018, sections 3.2 (the Spatial Feature Transform, SFT) and 3.3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore_env.toolbox import bicubic_upscale
from sr_models.complexity import macs_per_pixel
from sr_models.prior.categories import CATEGORIES

CONDITION_CHANNELS = 32


class ConditionNetwork(nn.Module):
    """Maps probability maps, four times the features' size, to the condition that all layers share.

    Conv 4x4 of stride 4, three 1x1 of 128 channels, 1x1 to 32; LeakyReLU 0.1 between.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shrink = nn.Conv2d(len(CATEGORIES), 128, 4, stride=4)
        self.mix = nn.ModuleList([nn.Conv2d(128, 128, 1) for _ in range(3)])
        self.narrow = nn.Conv2d(128, CONDITION_CHANNELS, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Compute the condition ``(N, 32, H, W)`` of probability maps ``(N, 8, 4H, 4W)``."""
        features = F.leaky_relu(self.shrink(maps), 0.1)
        for layer in self.mix:
            features = F.leaky_relu(layer(features), 0.1)
        condition: Tensor = self.narrow(features)
        return condition


class SpatialTransform(nn.Module):
    """SFT: features times ``1 + gamma`` plus ``beta``, both per position and channel, by two 1x1 convolutions each.

    It starts as the identity.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma, self.beta = _branch(channels), _branch(channels)

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """Scale and shift features ``(N, C, H, W)`` by a condition ``(N, 32, H, W)``."""
        modulated: Tensor = features * (1 + self.gamma(condition)) + self.beta(condition)
        return modulated


def _branch(channels: int) -> nn.Sequential:
    last = nn.Conv2d(CONDITION_CHANNELS, channels, 1)
    for parameter in last.parameters():
        nn.init.zeros_(parameter)
    return nn.Sequential(nn.Conv2d(CONDITION_CHANNELS, CONDITION_CHANNELS, 1), nn.LeakyReLU(0.1), last)


class ConditionedBlock(nn.Module):
    """Condition, ReLU, conv 3x3, condition, ReLU, conv 3x3, plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.condition1 = SpatialTransform(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.condition2 = SpatialTransform(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """Refine ``(N, C, H, W)``."""
        inner = self.conv1(F.relu(self.condition1(features, condition)))
        refined: Tensor = features + self.conv2(F.relu(self.condition2(inner, condition)))
        return refined


class SFTNet(nn.Module):
    """Conv to 64, 16 conditioned blocks, a skip around them, two pixel shuffles of 2, conv to RGB: 1.8 M parameters.

    Its output is added to the bicubically upscaled input; the published network has no such path. No batch norm.

    Args:
        channels: width.
        blocks: residual blocks.
    """

    takes_maps = True

    def __init__(self, channels: int = 64, blocks: int = 16) -> None:
        super().__init__()
        self.receptive_radius = 2 * blocks + 5
        self.condition = ConditionNetwork()
        self.head = nn.Conv2d(3, channels, 3, padding=1)
        self.blocks = nn.ModuleList([ConditionedBlock(channels) for _ in range(blocks)])
        self.last_condition = SpatialTransform(channels)
        self.join = nn.Conv2d(channels, channels, 3, padding=1)
        self.up1 = nn.Conv2d(channels, 4 * channels, 3, padding=1)
        self.up2 = nn.Conv2d(channels, 4 * channels, 3, padding=1)
        self.tail = nn.Conv2d(channels, 3, 3, padding=1)
        for parameter in self.tail.parameters():
            nn.init.zeros_(parameter)
        self.macs_per_pixel = macs_per_pixel(self, torch.zeros(1, 3, 8, 8), torch.zeros(1, len(CATEGORIES), 32, 32))
        """Per pixel of the input."""

    def forward(self, images: Tensor, maps: Tensor) -> Tensor:
        """Upscale ``(N, 3, H, W)`` float RGB in [0, 1] to ``(N, 3, 4H, 4W)``, neither clipped nor rounded.

        ``maps`` are the probabilities of the categories ``(N, 8, 4H, 4W)``.
        """
        condition = self.condition(maps)
        first = self.head(images)
        features = first
        for block in self.blocks:
            features = block(features, condition)
        features = first + self.join(F.relu(self.last_condition(features, condition)))
        features = F.relu(F.pixel_shuffle(self.up1(features), 2))
        features = F.relu(F.pixel_shuffle(self.up2(features), 2))
        upscaled: Tensor = bicubic_upscale(images) + self.tail(features)
        return upscaled
