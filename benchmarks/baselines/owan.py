"""OWAN: parallel operations weighted by attention, and its published weights from a local file.

Source: Suganuma, Liu, Okatani, "Attention-based Adaptive Selection of Operations for Image Restoration in the Presence
of Unknown Combined Distortions", CVPR 2019, section 3; widths, the places of ReLUs and the names of layers by the
published weights.
"""

from __future__ import annotations

import os
from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.baselines.same_size import BaselineNetwork
from sr_models.extractors.extractor import load_frozen

CHANNELS, GROUPS, LAYERS = 16, 10, 4
SEPARABLE, DILATED = (1, 3, 5, 7), (3, 5, 7)
OPERATIONS = len(SEPARABLE) + len(DILATED) + 1
"""The eighth is a 3x3 average."""


def _pair(kernel: int, dilation: int = 1) -> list[nn.Module]:
    """A convolution in two: each channel by itself, then across the channels."""
    padding = dilation * (kernel // 2)
    return [
        nn.Conv2d(CHANNELS, CHANNELS, kernel, padding=padding, dilation=dilation, groups=CHANNELS, bias=False),
        nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False),
    ]


def _operation(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(op=nn.Sequential(*layers)))


class OperationLayer(nn.Module):
    """Eight operations side by side, each weighted, then mixed by a 1x1 convolution; residual."""

    def __init__(self) -> None:
        super().__init__()
        separable = [_operation(*_pair(kernel), nn.ReLU(), *_pair(kernel)) for kernel in SEPARABLE]
        dilated = [_operation(*_pair(kernel, dilation=2)) for kernel in DILATED]
        average = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
        self._ops = nn.ModuleList([*separable, *dilated, average])
        self._out = nn.Sequential(nn.Conv2d(OPERATIONS * CHANNELS, CHANNELS, 1, bias=False))

    def forward(self, features: Tensor, weights: Tensor) -> Tensor:
        """Refine ``(N, 16, H, W)``; ``weights`` of the operations ``(N, 8)``."""
        scales = weights[..., None, None, None].unbind(1)
        results = [scale * operation(features) for scale, operation in zip(scales, self._ops, strict=True)]
        return F.relu(features + F.relu(self._out(torch.cat(results, dim=1))))


class Attention(nn.Module):
    """Weights of the operations of four layers, from the features averaged over the image."""

    def __init__(self) -> None:
        super().__init__()
        outputs = LAYERS * OPERATIONS
        self.ca_fc = nn.Sequential(nn.Linear(CHANNELS, 2 * outputs), nn.ReLU(), nn.Linear(2 * outputs, outputs))

    def forward(self, features: Tensor) -> Tensor:
        """The weights ``(N, 4, 8)`` for features ``(N, 16, H, W)``."""
        scores: Tensor = self.ca_fc(features.mean(dim=(2, 3)))
        return scores.reshape(-1, LAYERS, OPERATIONS).softmax(dim=-1)


class OperationGroup(nn.Module):
    """Four layers of weighted operations."""

    def __init__(self) -> None:
        super().__init__()
        self.preprocess = _operation(nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False))
        self._ops = nn.ModuleList(OperationLayer() for _ in range(LAYERS))

    def forward(self, features: Tensor, weights: Tensor) -> Tensor:
        """Refine ``(N, 16, H, W)``; ``weights`` ``(N, 4, 8)``."""
        features = F.relu(self.preprocess(features))
        for number, layer in enumerate(self._ops):
            features = layer(features, weights[:, number])
        return features


class ChannelBlock(nn.Module):
    """A residual block of two 3x3 convolutions, each channel by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = (
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS, bias=False) for _ in range(2)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Refine ``(N, 16, H, W)``."""
        return F.relu(features + self.conv2(F.relu(self.conv1(features))))


class Owan(BaselineNetwork):
    """The operation-wise attention network: 40 layers, 391,456 parameters, each of which acts once on every pixel.

    The attention depends on the whole image, so a large image cannot be restored in tiles.
    """

    def __init__(self) -> None:
        super().__init__()
        head = nn.Conv2d(3, CHANNELS, 3, padding=1, bias=False)
        self.FEB = nn.Sequential(head, *(ChannelBlock() for _ in range(4)))
        self.layers = nn.ModuleList(part for _ in range(GROUPS) for part in (Attention(), OperationGroup()))
        self.conv2 = nn.Conv2d(CHANNELS, 3, 3, padding=1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Restore ``(N, 3, H, W)``."""
        features = self.FEB(images)
        for attention, group in zip(self.layers[::2], self.layers[1::2], strict=True):
            features = group(features, attention(features))
        restored: Tensor = self.conv2(features)
        return restored


def read_published(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the weights that OWAN's authors published.

    Raises:
        ValueError: no such file, no file of tensors, or weights of another network.
    """
    return dict(load_frozen(Owan, path, "OWAN", "give the authors' model_best.pth").state_dict())
