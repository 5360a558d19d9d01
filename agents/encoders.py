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

from restore_env.episodes.spectrum import SPECTRUM_SIZE, WINDOW, spectrum

KERNELS = (9, 5, 5, 5)


class PublishedEncoder(nn.ModuleList):
    """RL-Restore's encoder: four convolutions of stride 2, flattened to ``(N, 384)``."""

    embedding_size = 32
    """Width of the layer after the encoder."""
    pretrain_share = 0.2
    """Share of a warm start in which an untrained encoder learns to estimate the distortions' strengths."""
    calibrated: bool | Tensor = False
    """Whether the encoder is frozen while the policy learns from demonstrations."""
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


class SpectralEncoder(nn.Module):
    """Statistics of the luma's windowed cosine transform, followed by two layers: ``(N, 64)``.

    Blur removes high frequencies, noise adds to all of them, and JPEG, which uses the same transform, sets weak ones to
    zero. For each of 64 frequencies the encoder computes mean and standard deviation of the log magnitude over the
    windows, and the share of windows in which it is missing. Only the two layers are learned. About 3 M
    multiply-accumulates.
    """

    embedding_size = 64
    pretrain_share = 0.35
    calibrated: Tensor
    """True after :meth:`calibrate`; before that the encoder is untrained."""
    width = 64
    max_deviation = 4.0
    """Normalized statistics are clamped to this many standard deviations. A patch of one colour would exceed it."""
    feature_mean: Tensor
    feature_std: Tensor

    def __init__(self) -> None:
        super().__init__()
        size, frequencies = SPECTRUM_SIZE, WINDOW**2
        self.register_buffer("calibrated", torch.tensor(False))
        self.register_buffer("feature_mean", torch.tensor([1.5, 1.0, 0.25]).repeat_interleave(frequencies))
        self.register_buffer("feature_std", torch.tensor([1.2, 0.3, 0.25]).repeat_interleave(frequencies))
        self.layers = nn.Sequential(nn.Linear(size, 192), nn.ReLU(), nn.Linear(192, self.width), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        """Encode RGB patches ``(N, 3, H, W)`` in [0, 1], of 8 pixels or more."""
        normalized = (spectrum(images) - self.feature_mean) / self.feature_std
        features: Tensor = self.layers(normalized.clamp(-self.max_deviation, self.max_deviation))
        return features

    def calibrate(self, images: Tensor) -> None:
        """Set the normalization to mean and standard deviation over these patches, a hundred or more.

        For an encoder that is about to be pretrained; afterwards it is frozen while the policy learns.
        """
        std, mean = torch.std_mean(spectrum(images), dim=0)
        self.feature_mean.copy_(mean)
        self.feature_std.copy_(std + 1e-3)
        self.calibrated.fill_(True)


Encoder = PublishedEncoder | SpectralEncoder
EncoderName = Literal["published", "spectral"]
ENCODERS: Mapping[EncoderName, Callable[[], Encoder]] = MappingProxyType(
    {"published": PublishedEncoder, "spectral": SpectralEncoder}
)


def _pad_same(images: Tensor, kernel: int) -> Tensor:
    """Pad with zeros so that a stride of 2 halves the size, rounded up; an odd pixel goes to the right and bottom."""
    missing = [max(0, (-(-size // 2) - 1) * 2 + kernel - size) for size in images.shape[-2:]]
    top, left = missing[0] // 2, missing[1] // 2
    return F.pad(images, (left, missing[1] - left, top, missing[0] - top))
