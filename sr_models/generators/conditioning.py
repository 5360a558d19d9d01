"""Layers that condition features on semantic maps: the Spatial Feature Transform and the alternatives to it.

Source: Wang et al., CVPR 2018, sections 3.2 and 4.3. All layers share one interface and start as the identity.
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
    """The input of every conditioning layer, at the features' size."""

    features: Tensor
    """``(N, 32, H, W)``, by the condition network."""
    maps: Tensor
    """``(N, 8, H, W)``: the probability maps, averaged."""


class ConditionNetwork(nn.Module):
    """Maps probability maps, four times the features' size, to the condition that all layers share.

    Conv 4x4 of stride 4, three 1x1 of 128 channels, 1x1 to 32; LeakyReLU 0.1 between.
    """

    macs_per_pixel = 16 * CATEGORY_COUNT * 128 + 3 * 128 * 128 + 128 * CONDITION_CHANNELS

    def __init__(self) -> None:
        super().__init__()
        self.shrink = nn.Conv2d(CATEGORY_COUNT, 128, 4, stride=4)
        self.mix = nn.ModuleList([nn.Conv2d(128, 128, 1) for _ in range(3)])
        self.narrow = nn.Conv2d(128, CONDITION_CHANNELS, 1)

    def forward(self, maps: Tensor) -> Condition:
        """Compute the condition of probability maps ``(N, 8, 4H, 4W)``."""
        features = F.leaky_relu(self.shrink(maps), 0.1)
        for layer in self.mix:
            features = F.leaky_relu(layer(features), 0.1)
        return Condition(self.narrow(features), F.avg_pool2d(maps, 4))


class ConditioningLayer(nn.Module):
    """Base of the layers: changes features ``(N, C, H, W)`` by a condition of the same height and width."""

    macs_per_pixel: int

    def forward(self, features: Tensor, condition: Condition) -> Tensor:
        """Return the conditioned features, of the features' shape."""
        raise NotImplementedError


def _zero_conv(inputs: int, outputs: int) -> nn.Conv2d:
    """A 1x1 convolution whose weights and biases are zero."""
    convolution = nn.Conv2d(inputs, outputs, 1)
    for parameter in convolution.parameters():
        nn.init.zeros_(parameter)
    return convolution


def _branch(channels: int) -> nn.Sequential:
    last = _zero_conv(CONDITION_CHANNELS, channels)
    return nn.Sequential(nn.Conv2d(CONDITION_CHANNELS, CONDITION_CHANNELS, 1), nn.LeakyReLU(0.1), last)


class SpatialTransform(ConditioningLayer):
    """SFT: features times ``1 + gamma`` plus ``beta``, both per position and channel, by two 1x1 convolutions each."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.macs_per_pixel = 2 * (CONDITION_CHANNELS**2 + CONDITION_CHANNELS * channels)
        self.gamma, self.beta = _branch(channels), _branch(channels)

    def forward(self, features: Tensor, condition: Condition) -> Tensor:
        """Scale and shift per position."""
        modulated: Tensor = features * (1 + self.gamma(condition.features)) + self.beta(condition.features)
        return modulated


class FeatureWise(SpatialTransform):
    """FiLM (Perez et al., AAAI 2018): one gamma and one beta per channel, from the averaged condition."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.macs_per_pixel = 0

    def forward(self, features: Tensor, condition: Condition) -> Tensor:
        """Scale and shift per channel."""
        return super().forward(features, Condition(condition.features.mean((2, 3), keepdim=True), condition.maps))


class Concatenation(ConditioningLayer):
    """Concatenates features and condition, then a 1x1 convolution back to C channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.macs_per_pixel = (channels + CONDITION_CHANNELS) * channels
        self.mix = _zero_conv(channels + CONDITION_CHANNELS, channels)
        nn.init.dirac_(self.mix.weight[:, :channels])

    def forward(self, features: Tensor, condition: Condition) -> Tensor:
        """Mix features and condition."""
        mixed: Tensor = self.mix(torch.cat([features, condition.features], dim=1))
        return mixed


class Composition(ConditioningLayer):
    """Compositional mapping (Zhu et al., ICCV 2017): a 1x1 convolution per category, weighted by the probabilities."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.macs_per_pixel = CATEGORY_COUNT * channels * channels
        self.change = _zero_conv(channels, CATEGORY_COUNT * channels)

    def forward(self, features: Tensor, condition: Condition) -> Tensor:
        """Add the weighted sum of the categories' changes."""
        changes = self.change(features).unflatten(1, (CATEGORY_COUNT, -1))
        composed: Tensor = features + (changes * condition.maps[:, :, None]).sum(1)
        return composed


CONDITIONING: Mapping[str, Callable[[int], ConditioningLayer]] = MappingProxyType(
    {"sft": SpatialTransform, "film": FeatureWise, "concatenation": Concatenation, "composition": Composition}
)
"""The layers by name; each is made from a number of channels."""
