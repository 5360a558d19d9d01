"""Earlier x4 super-resolvers: networks on the bicubically upscaled image, and networks that upscale at their end.

For any number of colours: the published ones of the first kind, and LapSRN, take luminance alone. Recursive networks
are built without batch normalisation (their shared layers would need statistics of their own for each recursion),
LapSRN and EnhanceNet have none.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.baselines.same_size import BaselineNetwork, convolution
from restore_env.toolbox import bicubic_upscale
from tools_zoo.networks import zeroed

SCALE = 4
CUBIC_RADIUS = 3


class OnBicubic(BaselineNetwork):
    """A network that refines the bicubically upscaled (x4) image.

    Args:
        network: keeps the size of images.
        receptive_radius: of the network, pixels.
    """

    scale = SCALE

    def __init__(self, network: nn.Module, receptive_radius: int) -> None:
        super().__init__()
        self.network = network
        self.receptive_radius = math.ceil(receptive_radius / SCALE) + CUBIC_RADIUS

    def forward(self, images: Tensor) -> Tensor:
        """Upscale ``(N, C, H, W)``."""
        refined: Tensor = self.network(bicubic_upscale(images, SCALE))
        return refined


class LayerStack(BaselineNetwork):
    """Layers in a row; with ``residual`` their result is added to the bicubically upscaled image."""

    scale = SCALE

    def __init__(self, *layers: nn.Module, receptive_radius: int, residual: bool = False) -> None:
        super().__init__()
        self.layers, self.residual, self.receptive_radius = nn.Sequential(*layers), residual, receptive_radius

    def forward(self, images: Tensor) -> Tensor:
        """Upscale ``(N, C, H, W)``."""
        upscaled: Tensor = self.layers(images)
        return bicubic_upscale(images, SCALE) + upscaled if self.residual else upscaled


class Residual(nn.Sequential):
    """Layers in a row, whose result is added to their input."""

    def forward(self, features: Tensor) -> Tensor:
        """Refine ``(N, C, H, W)``."""
        refined = features
        for layer in self:
            refined = layer(refined)
        return features + refined


def srcnn(colours: int) -> BaselineNetwork:
    """SRCNN 9-5-5 (Dong et al., TPAMI 2016): patches, a mapping, a reconstruction; not residual."""
    layers = nn.Sequential(
        convolution(colours, 64, 9), nn.ReLU(), convolution(64, 32, 5), nn.ReLU(), convolution(32, colours, 5)
    )
    return OnBicubic(layers, 4 + 2 + 2)


class Refinement(nn.Module):
    """``conv(ReLU(conv(ReLU(x))))``, 3x3, added by a residual unit; it starts as zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = convolution(channels, channels)
        self.conv2 = zeroed(convolution(channels, channels))

    def forward(self, features: Tensor) -> Tensor:
        """The residual of ``(N, C, H, W)``."""
        added: Tensor = self.conv2(F.relu(self.conv1(F.relu(features))))
        return added


class Drrn(BaselineNetwork):
    """DRRN B1U25 (Tai, Yang, Liu, CVPR 2017): a residual unit of 128 channels 25 times, each from the same features."""

    units = 25
    receptive_radius = 2 + 2 * units

    def __init__(self, colours: int) -> None:
        super().__init__()
        self.head = convolution(colours, 128)
        self.unit = Refinement(128)
        self.tail = zeroed(convolution(128, colours))

    def forward(self, images: Tensor) -> Tensor:
        """Refine ``(N, C, H, W)``."""
        start = features = self.head(images)
        for _ in range(self.units):
            features = start + self.unit(features)
        restored: Tensor = images + self.tail(F.relu(features))
        return restored


class MemoryBlock(nn.Module):
    """A residual unit of 64 channels, applied six times, and a gate: a 1x1 convolution of all feature maps so far.

    Args:
        memories: feature maps that come from the blocks before.
    """

    recursions = 6

    def __init__(self, memories: int) -> None:
        super().__init__()
        self.unit = Refinement(64)
        self.gate = convolution(64 * (self.recursions + memories), 64, 1)

    def forward(self, memories: list[Tensor]) -> Tensor:
        """The next memory from those before, each ``(N, 64, H, W)``."""
        features = memories[-1]
        recent = []
        for _ in range(self.recursions):
            features = features + self.unit(features)
            recent.append(features)
        remembered: Tensor = self.gate(F.relu(torch.cat([*recent, *memories], dim=1)))
        return remembered


class MemNet(BaselineNetwork):
    """MemNet M6R6 (Tai et al., ICCV 2017), its 80 layers without supervision of intermediate results."""

    blocks_count = 6
    receptive_radius = 2 + 2 * MemoryBlock.recursions * blocks_count

    def __init__(self, colours: int) -> None:
        super().__init__()
        self.head = convolution(colours, 64)
        self.blocks = nn.ModuleList(MemoryBlock(number + 1) for number in range(self.blocks_count))
        self.tail = zeroed(convolution(64, colours))

    def forward(self, images: Tensor) -> Tensor:
        """Refine ``(N, C, H, W)``."""
        memories: list[Tensor] = [self.head(images)]
        for block in self.blocks:
            memories.append(block(memories))
        restored: Tensor = images + self.tail(F.relu(memories[-1]))
        return restored


class PyramidLevel(nn.Module):
    """One doubling of LapSRN: ten 3x3 convolutions, a 4x4 transposed one; features and image side by side."""

    def __init__(self, colours: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(10):
            layers += [convolution(64, 64), nn.LeakyReLU(0.2)]
        self.features = nn.Sequential(*layers, _doubling(64, 64), nn.LeakyReLU(0.2))
        self.image = _doubling(colours, colours)
        self.residual = zeroed(convolution(64, colours))

    def forward(self, features: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """Double features ``(N, 64, H, W)`` and images ``(N, C, H, W)``."""
        features = self.features(features)
        return features, self.image(images) + self.residual(features)


def _doubling(entering: int, leaving: int) -> nn.ConvTranspose2d:
    """A transposed 4x4 convolution of stride 2 that starts as bilinear upscaling, channel by channel."""
    layer = nn.ConvTranspose2d(entering, leaving, 4, stride=2, padding=1)
    ramp = torch.tensor([0.25, 0.75, 0.75, 0.25])
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[range(entering), range(leaving)] = torch.outer(ramp, ramp)
        assert layer.bias is not None
        layer.bias.zero_()
    return layer


class LapSrn(BaselineNetwork):
    """LapSRN (Lai et al., CVPR 2017): two doublings, each with a residual."""

    scale = SCALE
    receptive_radius = 1 + 11 + 1 + 6 + 2

    def __init__(self, colours: int) -> None:
        super().__init__()
        self.head = nn.Sequential(convolution(colours, 64), nn.LeakyReLU(0.2))
        self.levels = nn.ModuleList(PyramidLevel(colours) for _ in range(2))

    def forward(self, images: Tensor) -> Tensor:
        """Upscale ``(N, C, H, W)``."""
        features = self.head(images)
        for level in self.levels:
            features, images = level(features, images)
        return images


def srresnet(colours: int) -> BaselineNetwork:
    """SRResNet, which is SRGAN's generator (Ledig et al., CVPR 2017): 16 normalised blocks, two pixel-shuffles."""

    def block() -> nn.Module:
        norm = nn.BatchNorm2d(64)
        nn.init.zeros_(norm.weight)  # every block starts as the identity
        return Residual(convolution(64, 64), nn.BatchNorm2d(64), nn.PReLU(), convolution(64, 64), norm)

    head = (convolution(colours, 64, 9), nn.PReLU())
    body = Residual(*(block() for _ in range(16)), convolution(64, 64), nn.BatchNorm2d(64))
    doublings = [layer for _ in range(2) for layer in (convolution(64, 256), nn.PixelShuffle(2), nn.PReLU())]
    tail = convolution(64, colours, 9)
    with torch.no_grad():
        tail.weight.mul_(0.1)
    return LayerStack(*head, body, *doublings, tail, receptive_radius=4 + 2 * 16 + 1 + 2 + 4)


def enhancenet(colours: int) -> BaselineNetwork:
    """EnhanceNet (Sajjadi, Schoelkopf, Hirsch, ICCV 2017): 10 blocks, nearest-neighbour doublings, plus bicubic."""
    head = (convolution(colours, 64), nn.ReLU())
    blocks = [Residual(convolution(64, 64), nn.ReLU(), zeroed(convolution(64, 64))) for _ in range(10)]
    doublings: list[nn.Module] = []
    for _ in range(2):
        doublings += [nn.Upsample(scale_factor=2, mode="nearest"), convolution(64, 64), nn.ReLU()]
    tail = (convolution(64, 64), nn.ReLU(), zeroed(convolution(64, colours)))
    return LayerStack(*head, *blocks, *doublings, *tail, receptive_radius=1 + 2 * 10 + 1 + 2 + 1, residual=True)
