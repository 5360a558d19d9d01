"""Encoders: networks that map an image patch to features.

Source of the published one: Yu et al., CVPR 2018, section 3.2 and the published checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore_env.episodes.spectrum import COMPACT_SIZE, compact_codes, decoded
from restore_env.images.arrays import quantized

KERNELS = (9, 5, 5, 5)


class PublishedEncoder(nn.ModuleList):
    """RL-Restore's encoder: four convolutions of stride 2, flattened to ``(N, 384)``."""

    observes: tuple[str, ...] = ("image",)
    """What it encodes: entries of an observation."""
    embedding_size = 32
    """Width of the layer after the encoder."""
    hidden = 50
    """Width of the LSTM."""
    memory_format = torch.channels_last
    """Of images in memory: on CPUs training is a fifth faster with channels last."""

    def __init__(self) -> None:
        widths = (3, 32, 24, 24, 24)
        super().__init__(nn.Conv2d(widths[i], widths[i + 1], kernel, stride=2) for i, kernel in enumerate(KERNELS))
        self.width = widths[-1] * 4 * 4

    def forward(self, images: Tensor) -> Tensor:
        """Encode RGB patches ``(N, 3, 63, 63)`` in [0, 1]."""
        images = images.contiguous(memory_format=self.memory_format)
        for conv, kernel in zip(self, KERNELS, strict=True):
            images = F.relu(conv(_pad_same(images, kernel)))
        return images.flatten(1)


class CompactEncoder(nn.Module):
    """Two layers on the environment's compact observation, which is computed where images are given: ``(N, 384)``."""

    observes: tuple[str, ...] = ("spectrum",)
    embedding_size = 192
    hidden = 192
    width = 384
    dropout = 0.3
    more = 0
    """Features that :meth:`features_of` adds."""
    max_deviation = 5.0
    """Normalized numbers are clamped to this many standard deviations."""
    number_mean: Tensor
    number_std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("number_mean", torch.zeros(COMPACT_SIZE))
        self.register_buffer("number_std", torch.ones(COMPACT_SIZE))
        self.layers = nn.Sequential(
            nn.Linear(COMPACT_SIZE + self.more, self.width),
            nn.ReLU(),
            nn.Dropout(self.dropout),
            nn.Linear(self.width, self.width),
            nn.ReLU(),
            nn.Dropout(self.dropout),
        )

    def forward(self, images: Tensor | None, numbers: Tensor | None = None) -> Tensor:
        """Encode patches.

        Args:
            images: RGB ``(N, 3, H, W)`` in [0, 1]; None: not needed.
            numbers: compact observations ``(N, 257)``; None: computed from the images as 8 bits.
        """
        if numbers is None:
            assert images is not None
            numbers = torch.from_numpy(decoded(compact_codes(quantized(images)))).to(images.device)
        normalized = (numbers - self.number_mean) / self.number_std
        known = [normalized.clamp(-self.max_deviation, self.max_deviation), *self.features_of(images)]
        encoded: Tensor = self.layers(torch.cat(known, dim=1))
        return encoded

    def features_of(self, images: Tensor | None) -> list[Tensor]:
        """Features of the images beside the compact observation: none."""
        return []

    def normalize_by(self, numbers: Tensor) -> None:
        """Set the normalization to mean and standard deviation of these observations ``(N, 257)``."""
        std, mean = torch.std_mean(numbers, dim=0)
        self.number_mean.copy_(mean)
        self.number_std.copy_(std + 1e-3)


class CombinedEncoder(CompactEncoder):
    """The compact observation, and means and deviations of three convolutions' features: ``(N, 384)``."""

    observes = ("image", "spectrum")
    more = 96
    stride = 3

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.PixelUnshuffle(self.stride),
            nn.Conv2d(3 * self.stride**2, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 48, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(48, 48, 3, padding=1),
            nn.ReLU(),
        )

    def features_of(self, images: Tensor | None) -> list[Tensor]:
        """Mean and deviation of each channel of the convolutions: ``(N, 48)`` each."""
        assert images is not None
        cut = [length // self.stride * self.stride for length in images.shape[-2:]]
        inputs = (images[..., : cut[0], : cut[1]] - 0.5) * 4
        features = self.convolutions(inputs.contiguous(memory_format=torch.channels_last)).flatten(2)
        deviation, mean = torch.std_mean(features, dim=-1, correction=0)
        return [mean, deviation]


Encoder = PublishedEncoder | CompactEncoder
EncoderName = Literal["published", "compact", "combined"]
ENCODERS: Mapping[EncoderName, Callable[[], Encoder]] = MappingProxyType(
    {
        "published": PublishedEncoder,
        "compact": CompactEncoder,
        "combined": CombinedEncoder,
    }
)


def _pad_same(images: Tensor, kernel: int) -> Tensor:
    """Pad with zeros so that a stride of 2 halves the size, rounded up; an odd pixel goes to the right and bottom."""
    missing = [max(0, (-(-size // 2) - 1) * 2 + kernel - size) for size in images.shape[-2:]]
    top, left = missing[0] // 2, missing[1] // 2
    return F.pad(images, (left, missing[1] - left, top, missing[0] - top))
