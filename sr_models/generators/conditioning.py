"""The Spatial Feature Transform (SFT), which conditions features on semantic maps, and its condition network.

Source: Wang et al., CVPR 2018, section 3.2.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from sr_models.prior.categories import CATEGORIES

CONDITION_CHANNELS = 32


class ConditionNetwork(nn.Module):
    """Maps probability maps, four times the features' size, to the condition that all layers share.

    Conv 4x4 of stride 4, three 1x1 of 128 channels, 1x1 to 32; LeakyReLU 0.1 between.
    """

    macs_per_pixel = 16 * len(CATEGORIES) * 128 + 3 * 128 * 128 + 128 * CONDITION_CHANNELS

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
        self.macs_per_pixel = 2 * (CONDITION_CHANNELS**2 + CONDITION_CHANNELS * channels)
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
