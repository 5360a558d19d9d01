"""The tools' networks: RL-Restore's two at the published shapes, and an hourglass (a small U-Net).

Source of the two: Yu et al., CVPR 2018, section 4 and the published checkpoints. All keep the image's size, pad with
zeros, and predict what is to be added to their input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F


def completed(images: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column of ``(N, C, H, W)`` until the sides are multiples of ``multiple``."""
    rows, columns = (-side % multiple for side in images.shape[-2:])
    return F.pad(images, (0, columns, 0, rows), mode="replicate") if rows or columns else images


class ThreeLayer(nn.Module):
    """Conv 9x9 3->32, conv 5x5 32->16, conv 5x5 16->3, plus the input: 21,827 parameters, 21,776 MAC per pixel."""

    macs_per_pixel = 9 * 9 * 3 * 32 + 5 * 5 * 32 * 16 + 5 * 5 * 16 * 3
    receptive_radius = 4 + 2 + 2

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
    receptive_radius = 2 + 4 + 2

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


class Surroundings(nn.Module):
    """Scales each channel by a function of its means over a window around each pixel (noise level, blur).

    ``x * (1 + conv 1x1(mean of ReLU(x)))``, after squeeze-and-excitation (Hu et al., CVPR 2018), but over a window, so
    that an image of any size can be worked on in tiles. Nothing outside the image counts. It starts as the identity.

    Args:
        channels: of the features.
        window: odd; its side.
    """

    def __init__(self, channels: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.weigh = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.weigh.weight)
        nn.init.zeros_(cast(Tensor, self.weigh.bias))

    def forward(self, features: Tensor) -> Tensor:
        """Weigh ``(N, C, H, W)``."""
        side, half = self.window, self.window // 2
        rows = F.avg_pool2d(F.relu(features), (side, 1), 1, (half, 0), count_include_pad=False)
        means = F.avg_pool2d(rows, (1, side), 1, (0, half), count_include_pad=False)
        weighed: Tensor = features * (1 + self.weigh(means))
        return weighed


class Hourglass(nn.Module):
    """Residual blocks at half the resolution, at a quarter, and at half again: a U-Net of two levels.

    Every 2x2 pixels become the channels of one (pixel-unshuffle); the features of the quarter are added to those of the
    first half. For the same computation it is far wider than a network at full resolution, and its receptive field has
    sixteen times the area. At a quarter the first block's channels are scaled by window means (:class:`Surroundings`).
    A side that is no multiple of 4 is completed by repeating its last row or column.

    Args:
        channels: width at half the resolution, where there is one block before the middle and one after it.
        middle: width at a quarter of the resolution.
        blocks: residual blocks there.
        window: side of the surroundings, at a quarter of the resolution.
    """

    multiple = 4
    """To which sides are completed."""

    def __init__(self, channels: int, middle: int, blocks: int, window: int) -> None:
        super().__init__()
        at_half = 9 * (2 * 12 * channels + 4 * channels**2)
        at_quarter = 2 * 4 * channels * middle + (9 * 2 * blocks + 1) * middle**2
        self.macs_per_pixel = (4 * at_half + at_quarter) // 16
        self.receptive_radius = 2 * (1 + 2 + 2 + 1) + 4 * (2 * blocks + window // 2) + 3
        self.head = nn.Conv2d(12, channels, 3, padding=1)
        self.before = ResidualBlock(channels)
        self.down = nn.Conv2d(channels, middle, 2, stride=2)
        self.middle = nn.ModuleList(ResidualBlock(middle) for _ in range(blocks))
        self.surroundings = Surroundings(middle, window)
        self.up = nn.Conv2d(middle, 4 * channels, 1)
        self.after = ResidualBlock(channels)
        self.tail = nn.Conv2d(channels, 12, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Restore ``(N, 3, H, W)``."""
        height, width = images.shape[-2:]
        fine = self.before(self.head(F.pixel_unshuffle(completed(images, self.multiple), 2)))
        first, *further = self.middle
        coarse: Tensor = self.surroundings(first(self.down(fine)))
        for block in further:
            coarse = block(coarse)
        features = self.after(fine + F.pixel_shuffle(self.up(F.relu(coarse)), 2))
        change = F.pixel_shuffle(self.tail(F.relu(features)), 2)
        restored: Tensor = images + change[..., :height, :width]
        return restored


ToolNetwork = ThreeLayer | EightLayer | Hourglass

NETWORKS: Mapping[str, Callable[[], ToolNetwork]] = MappingProxyType(
    {
        "three_layer": ThreeLayer,
        "eight_layer": EightLayer,
        "hourglass_32": partial(Hourglass, channels=32, middle=64, blocks=2, window=15),
        "hourglass_48": partial(Hourglass, channels=48, middle=96, blocks=2, window=15),
    }
)
"""The networks by the name that weight files use."""


def last_layer(network: ToolNetwork) -> nn.Conv2d:
    """The convolution whose output is added to the input."""
    return network.conv3 if isinstance(network, ThreeLayer) else network.tail


def zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer, all weights 0: a residual network that ends with it begins as the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
