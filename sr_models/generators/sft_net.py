"""SFT-Net: the generator of SFT-GAN, a residual x4 super-resolver conditioned on semantic maps.

Source: Wang et al., CVPR 2018, section 3.3.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from restore_env.toolbox import bicubic_upscale
from sr_models.generators.conditioning import ConditionNetwork, SpatialTransform

WIDTH, BLOCKS = 64, 16


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

    def __init__(self, channels: int = WIDTH, blocks: int = BLOCKS) -> None:
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
        layers = sum(layer.macs_per_pixel for layer in self.modules() if isinstance(layer, SpatialTransform))
        convolutions = 9 * (3 * channels + (2 * blocks + 1 + 4 + 16) * channels**2 + 16 * channels * 3)
        self.macs_per_pixel = convolutions + layers + ConditionNetwork.macs_per_pixel
        """Per pixel of the input."""

    def forward(self, images: Tensor, maps: Tensor) -> Tensor:
        """Upscale four times.

        Args:
            images: ``(N, 3, H, W)`` float RGB in [0, 1].
            maps: ``(N, 8, 4H, 4W)`` probabilities of the categories (:mod:`sr_models.prior.categories`).

        Returns:
            ``(N, 3, 4H, 4W)``, neither clipped nor rounded.
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
