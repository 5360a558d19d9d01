"""The tools' networks: RL-Restore's two at exactly the published shapes, and one that works at half resolution.

Source of the two: Yu et al., CVPR 2018, section 4 and the published checkpoints. All keep the image's size, pad with
zeros, and predict what is to be added to their input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from torch import Tensor, nn
from torch.nn import functional as F


class ThreeLayer(nn.Module):
    """Conv 9x9 3->32, conv 5x5 32->16, conv 5x5 16->3, plus the input: 21,827 parameters, 21,776 MAC per pixel."""

    macs_per_pixel = 9 * 9 * 3 * 32 + 5 * 5 * 32 * 16 + 5 * 5 * 16 * 3
    reach = 4 + 2 + 2

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 9, padding=4)
        self.conv2 = nn.Conv2d(32, 16, 5, padding=2)
        self.conv3 = nn.Conv2d(16, 3, 5, padding=2)

    def forward(self, images: Tensor) -> Tensor:
        """Restore ``(N, 3, H, W)``."""
        features = F.relu(self.conv2(F.relu(self.conv1(images), inplace=True)), inplace=True)
        restored: Tensor = images + self.conv3(features)
        return restored


class ResidualBlock(nn.Module):
    """``x + conv(ReLU(conv(ReLU(x))))``, 3x3, of one width."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """Refine ``(N, C, H, W)``."""
        refined: Tensor = features + self.conv2(F.relu(self.conv1(F.relu(features)), inplace=True))
        return refined


class EightLayer(nn.Module):
    """Two residual blocks of 32 between wide 5x5 ends: 50,851 parameters, 50,560 MAC per pixel."""

    macs_per_pixel = 2 * 5 * 5 * 3 * 64 + 2 * 64 * 32 + 4 * 3 * 3 * 32 * 32
    reach = 2 + 4 + 2

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 64, 5, padding=2)
        self.squeeze = nn.Conv2d(64, 32, 1)
        self.block1 = ResidualBlock(32)
        self.block2 = ResidualBlock(32)
        self.expand = nn.Conv2d(32, 64, 1)
        self.tail = nn.Conv2d(64, 3, 5, padding=2)

    def forward(self, images: Tensor) -> Tensor:
        """Restore ``(N, 3, H, W)``."""
        features = self.block2(self.block1(self.squeeze(F.relu(self.head(images), inplace=True))))
        restored: Tensor = images + self.tail(F.relu(self.expand(features), inplace=True))
        return restored


class HalfResolution(nn.Module):
    """Residual blocks at half the resolution: every 2x2 pixels become the channels of one (pixel-unshuffle).

    For the same computation it is four times as wide as a network at full resolution, or sees four times the area.
    An odd row or column is completed by repeating the last one.

    Args:
        channels: width.
        blocks: residual blocks of two 3x3 convolutions.
    """

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.macs_per_pixel = 9 * (2 * 12 * channels + 2 * blocks * channels**2) // 4
        self.reach = 2 * (2 * blocks + 2) + 1
        self.head = nn.Conv2d(12, channels, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))
        self.tail = nn.Conv2d(channels, 12, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Restore ``(N, 3, H, W)``."""
        height, width = images.shape[-2:]
        even = F.pad(images, (0, width % 2, 0, height % 2), mode="replicate") if height % 2 or width % 2 else images
        features = self.blocks(self.head(F.pixel_unshuffle(even, 2)))
        change = F.pixel_shuffle(self.tail(F.relu(features)), 2)
        restored: Tensor = images + change[..., :height, :width]
        return restored


ToolNetwork = ThreeLayer | EightLayer | HalfResolution

NETWORKS: Mapping[str, Callable[[], ToolNetwork]] = MappingProxyType(
    {
        "three_layer": ThreeLayer,
        "eight_layer": EightLayer,
        "half_32x4": partial(HalfResolution, channels=32, blocks=4),
        "half_56x3": partial(HalfResolution, channels=56, blocks=3),
    }
)
"""The networks by the name that weight files use."""


def last_layer(network: ToolNetwork) -> nn.Conv2d:
    """The convolution whose output is added to the input."""
    return network.conv3 if isinstance(network, ThreeLayer) else network.tail
