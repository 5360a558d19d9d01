"""How semantic maps steer features: the Spatial Feature Transform and the alternatives that it is compared with.

Source: Wang et al., CVPR 2018, sections 3.2 and 4.3. All layers have one interface: a network takes any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_models.prior.categories import CATEGORIES

CATEGORY_COUNT = len(CATEGORIES)
CONDITION_CHANNELS = 32


class Condition(NamedTuple):
    """What every conditioning layer of a network is given."""

    features: Tensor
    """``(N, 32, H, W)``: what the condition network made of the maps, at the features' size."""
    maps: Tensor
    """``(N, 8, H, W)``: the probabilities themselves, averaged down to the features' size."""


class ConditionNetwork(nn.Module):
    """Probability maps at four times the features' size, to the conditions that all layers share.

    Conv 4x4 of stride 4, three 1x1 of 128 channels, 1x1 to 32; LeakyReLU 0.1 between.
    """

    macs_per_pixel = 16 * CATEGORY_COUNT * 128 + 3 * 128 * 128 + 128 * CONDITION_CHANNELS

    def __init__(self) -> None:
        super().__init__()
        self.shrink = nn.Conv2d(CATEGORY_COUNT, 128, 4, stride=4)
        self.mix = nn.ModuleList([nn.Conv2d(128, 128, 1) for _ in range(3)])
        self.narrow = nn.Conv2d(128, CONDITION_CHANNELS, 1)

    def forward(self, maps: Tensor) -> Condition:
        """Make the condition of maps ``(N, 8, 4H, 4W)``, probabilities."""
        features = F.leaky_relu(self.shrink(maps), 0.1)
        for layer in self.mix:
            features = F.leaky_relu(layer(features), 0.1)
        return Condition(self.narrow(features), F.avg_pool2d(maps, 4))


class ConditioningLayer(nn.Module):
    """Changes features ``(N, C, H, W)`` by a condition of the same height and width. Begins as the identity."""

    macs_per_pixel: int

    def forward(self, features: Tensor, condition: Condition) -> Tensor:
        """Give the conditioned features, of the features' shape."""
        raise NotImplementedError


class Modulation(ConditioningLayer):
    """Features times ``1 + gamma`` plus ``beta``, for every channel; what gamma and beta are, subclasses say."""

    def modulation(self, condition: Condition) -> tuple[Tensor, Tensor]:
        """Gamma (how far the factor is from 1) and beta, of the features' shape or able to become it."""
        raise NotImplementedError

    def forward(self, features: Tensor, condition: Condition) -> Tensor:
        """Scale and shift."""
        gamma, beta = self.modulation(condition)
        modulated: Tensor = features * (1 + gamma) + beta
        return modulated


def _zero_bias(convolution: nn.Conv2d) -> None:
    assert convolution.bias is not None
    nn.init.zeros_(convolution.bias)


def _branch(channels: int) -> nn.Sequential:
    last = nn.Conv2d(CONDITION_CHANNELS, channels, 1)
    nn.init.zeros_(last.weight)
    _zero_bias(last)
    return nn.Sequential(nn.Conv2d(CONDITION_CHANNELS, CONDITION_CHANNELS, 1), nn.LeakyReLU(0.1), last)


class SpatialTransform(Modulation):
    """SFT: a gamma and a beta for every position and channel, each by two 1x1 convolutions (32, then C channels)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.macs_per_pixel = 2 * (CONDITION_CHANNELS**2 + CONDITION_CHANNELS * channels)
        self.gamma, self.beta = _branch(channels), _branch(channels)

    def modulation(self, condition: Condition) -> tuple[Tensor, Tensor]:
        """Gamma and beta ``(N, C, H, W)``."""
        return self.gamma(condition.features), self.beta(condition.features)


class FeatureWise(Modulation):
    """FiLM (Perez et al., AAAI 2018): one gamma and one beta a channel, by the whole image's average condition."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.macs_per_pixel = 0
        self.gamma, self.beta = _branch(channels), _branch(channels)

    def modulation(self, condition: Condition) -> tuple[Tensor, Tensor]:
        """Gamma and beta ``(N, C, 1, 1)``."""
        average = condition.features.mean((2, 3), keepdim=True)
        return self.gamma(average), self.beta(average)


class Concatenation(ConditioningLayer):
    """The conditions beside the features as further channels, and a 1x1 convolution back to C channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.macs_per_pixel = (channels + CONDITION_CHANNELS) * channels
        self.mix = nn.Conv2d(channels + CONDITION_CHANNELS, channels, 1)
        nn.init.zeros_(self.mix.weight)
        nn.init.dirac_(self.mix.weight[:, :channels])
        _zero_bias(self.mix)

    def forward(self, features: Tensor, condition: Condition) -> Tensor:
        """Mix features and conditions."""
        mixed: Tensor = self.mix(torch.cat([features, condition.features], dim=1))
        return mixed


class Composition(ConditioningLayer):
    """Compositional mapping (Zhu et al., ICCV 2017): a 1x1 convolution a category, summed by the probabilities."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.macs_per_pixel = CATEGORY_COUNT * channels * channels
        self.change = nn.Conv2d(channels, CATEGORY_COUNT * channels, 1)
        nn.init.zeros_(self.change.weight)
        _zero_bias(self.change)

    def forward(self, features: Tensor, condition: Condition) -> Tensor:
        """Add to the features what their category asks for."""
        changes = self.change(features).unflatten(1, (CATEGORY_COUNT, -1))
        composed: Tensor = features + (changes * condition.maps[:, :, None]).sum(1)
        return composed


CONDITIONING: Mapping[str, Callable[[int], ConditioningLayer]] = MappingProxyType(
    {
        "sft": SpatialTransform,
        "film": FeatureWise,
        "concatenation": Concatenation,
        "composition": Composition,
    }
)
"""The layers by name; each is made from a number of channels."""
