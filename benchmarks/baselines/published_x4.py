"""RFDN and CARN-M: small x4 super-resolvers with published weights.

The networks are built from their papers; their layers have the names of the authors' weight files, which are not
part of the project.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.baselines.complexity import macs_per_pixel
from restore_env.toolbox import FunctionTool
from sr_models.extractors.extractor import load_frozen

SCALE = 4


def _named(name: str, *layers: nn.Module) -> nn.Sequential:
    """Layers in a row, below the name that they have in the files."""
    return nn.Sequential(OrderedDict([(name, layers[0] if len(layers) == 1 else nn.Sequential(*layers))]))


class SpatialAttention(nn.Module):
    """ESA (Liu et al., CVPR workshops 2020): weights in 0..1 for features, from strided and pooled features around."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, inner, 1)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=2)
        self.conv_max = nn.Conv2d(inner, inner, 3, padding=1)
        self.conv3 = nn.Conv2d(inner, inner, 3, padding=1)
        self.conv3_ = nn.Conv2d(inner, inner, 3, padding=1)
        self.conv_f = nn.Conv2d(inner, inner, 1)
        self.conv4 = nn.Conv2d(inner, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Weight ``(N, C, H, W)``; height and width must be 15 or more."""
        narrow = self.conv1(features)
        pooled = F.max_pool2d(self.conv2(narrow), 7, stride=3)
        around = self.conv3_(F.relu(self.conv3(F.relu(self.conv_max(pooled)))))
        around = F.interpolate(around, size=features.shape[-2:], mode="bilinear", align_corners=False)
        weighed: Tensor = features * torch.sigmoid(self.conv4(around + self.conv_f(narrow)))
        return weighed


class DistillationBlock(nn.Module):
    """RFDB: three steps, each keeping half the channels (1x1) and refining the rest (3x3, residual)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.c1_d, self.c2_d, self.c3_d = (nn.Conv2d(channels, half, 1) for _ in range(3))
        self.c1_r, self.c2_r, self.c3_r = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(3))
        self.c4 = nn.Conv2d(channels, half, 3, padding=1)
        self.c5 = nn.Conv2d(4 * half, channels, 1)
        self.esa = SpatialAttention(channels, channels // 4)

    def forward(self, features: Tensor) -> Tensor:
        """Refine ``(N, C, H, W)``."""
        store = []
        for keep, refine in ((self.c1_d, self.c1_r), (self.c2_d, self.c2_r), (self.c3_d, self.c3_r)):
            store.append(F.leaky_relu(keep(features), 0.05))
            features = F.leaky_relu(features + refine(features), 0.05)
        store.append(F.leaky_relu(self.c4(features), 0.05))
        refined: Tensor = self.esa(self.c5(torch.cat(store, dim=1)))
        return refined


class RFDN(nn.Module):
    """The residual feature distillation network that won AIM 2020's efficient super-resolution: 433 k parameters.

    Source: Liu, Tang and Wu, "Residual Feature Distillation Network for Lightweight Image Super-Resolution", ECCV
    workshops 2020, arXiv 2009.11551 (E-RFDN: 4 blocks of 50 channels).
    """

    def __init__(self, channels: int = 50) -> None:
        super().__init__()
        self.fea_conv = nn.Conv2d(3, channels, 3, padding=1)
        self.B1, self.B2, self.B3, self.B4 = (DistillationBlock(channels) for _ in range(4))
        self.c = nn.Sequential(nn.Conv2d(4 * channels, channels, 1), nn.LeakyReLU(0.05))
        self.LR_conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.upsampler = nn.Sequential(nn.Conv2d(channels, 3 * SCALE**2, 3, padding=1), nn.PixelShuffle(SCALE))

    def forward(self, images: Tensor) -> Tensor:
        """Upscale ``(N, 3, H, W)`` RGB in [0, 1], height and width 15 or more; inside, the range is 0..255."""
        first = self.fea_conv(images * 255)
        depths = [first]
        for block in (self.B1, self.B2, self.B3, self.B4):
            depths.append(block(depths[-1]))
        features = first + self.LR_conv(self.c(torch.cat(depths[1:], dim=1)))
        upscaled: Tensor = self.upsampler(features) / 255
        return upscaled


class EfficientResidual(nn.Module):
    """Residual-E: two 3x3 convolutions in groups and a 1x1, plus the input."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=groups),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, groups=groups),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Refine ``(N, C, H, W)``."""
        return F.relu(features + self.body(features))


class Cascade(nn.Module):
    """Three steps; after each a 1x1 convolution of the input and the outputs of all steps so far.

    Args:
        channels: of all features.
        blocks: the three steps; or one, which is applied three times.
    """

    def __init__(self, channels: int, *blocks: nn.Module) -> None:
        super().__init__()
        self.count = len(blocks)
        for number, block in enumerate(blocks, 1):
            self.add_module(f"b{number}", block)
        self.c1, self.c2, self.c3 = (
            _named("body", nn.Conv2d(count * channels, channels, 1), nn.ReLU()) for count in (2, 3, 4)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Refine ``(N, C, H, W)``."""
        outputs = features
        for number, join in enumerate((self.c1, self.c2, self.c3), 1):
            step = self.get_submodule(f"b{min(number, self.count)}")
            outputs = torch.cat([outputs, step(features)], dim=1)
            features = join(outputs)
        return features


class CARNM(Cascade):
    """CARN-M, the mobile cascading residual network: 294 k parameters (412 k with the x2 and x3 upsamplers).

    Source: Ahn, Kang and Sohn, "Fast, Accurate, and Lightweight Super-Resolution with Cascading Residual Network", ECCV
    2018, arXiv 1803.08664 (groups of 4, shared residual blocks).
    """

    def __init__(self, channels: int = 64, groups: int = 4) -> None:
        super().__init__(channels, *(Cascade(channels, EfficientResidual(channels, groups)) for _ in range(3)))
        self.sub_mean, self.add_mean = (_named("shifter", nn.Conv2d(3, 3, 1)) for _ in range(2))  # the mean colour
        self.entry = nn.Conv2d(3, channels, 3, padding=1)
        doublings = [
            (nn.Conv2d(channels, 4 * channels, 3, padding=1, groups=groups), nn.ReLU(), nn.PixelShuffle(2))
            for _ in range(2)
        ]
        self.upsample = _named("up4", _named("body", *doublings[0], *doublings[1]))
        self.exit = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Upscale ``(N, 3, H, W)`` RGB in [0, 1]."""
        features = super().forward(self.entry(self.sub_mean(images)))
        upscaled: Tensor = self.add_mean(self.exit(self.upsample(features)))
        return upscaled


PUBLISHED: Mapping[str, tuple[Callable[[], nn.Module], str]] = MappingProxyType(
    {"RFDN": (RFDN, "RFDN_AIM.pth"), "CARN-M": (CARNM, "carn_m.pth")}
)
"""The networks and the files of their weights, by name."""


def load_published(name: str, folder: Path) -> FunctionTool:
    """A network as a tool, frozen, in evaluation mode; its weights lie in ``folder``.

    Raises:
        ValueError: the file is missing, damaged, or holds another network.
    """
    build, file = PUBLISHED[name]
    network = load_frozen(build, folder / file, name, f"put the authors' {file} there")
    return FunctionTool(name, network, SCALE, macs_per_pixel(network, size=128))
