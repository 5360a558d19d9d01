"""OWAN: parallel operations weighted by attention, and its published weights from a local file.

Source: Suganuma, Liu, Okatani, "Attention-based Adaptive Selection of Operations for Image Restoration in the Presence
of Unknown Combined Distortions", CVPR 2019, section 3; widths and the places of ReLUs by the published weights.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.baselines.same_size import BaselineNetwork

CHANNELS, GROUPS, LAYERS = 16, 10, 4
SEPARABLE, DILATED = (1, 3, 5, 7), (3, 5, 7)
OPERATIONS = len(SEPARABLE) + len(DILATED) + 1
"""The eighth is a 3x3 average."""

PUBLISHED_NAMES = (
    (r"^FEB\.0\.", "head."),
    (r"^FEB\.(\d+)\.conv(\d)\.", lambda found: f"blocks.{int(found[1]) - 1}.conv{found[2]}."),
    (r"^layers\.(\d+)\.ca_fc\.", lambda found: f"groups.{int(found[1]) // 2}.attention."),
    (r"^layers\.(\d+)\.preprocess\.op\.0\.", lambda found: f"groups.{int(found[1]) // 2}.enter."),
    (
        r"^layers\.(\d+)\._ops\.(\d)\._ops\.(\d)\.op\.",
        lambda found: f"groups.{int(found[1]) // 2}.layers.{found[2]}.operations.{found[3]}.",
    ),
    (
        r"^layers\.(\d+)\._ops\.(\d)\._out\.0\.",
        lambda found: f"groups.{int(found[1]) // 2}.layers.{found[2]}.merge.",
    ),
    (r"^conv2\.", "tail."),
)
"""Names of the weights in the published file, and here."""


def _pair(kernel: int, dilation: int = 1) -> list[nn.Module]:
    """A convolution in two: each channel by itself, then across the channels."""
    padding = dilation * (kernel // 2)
    return [
        nn.Conv2d(CHANNELS, CHANNELS, kernel, padding=padding, dilation=dilation, groups=CHANNELS, bias=False),
        nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False),
    ]


class OperationLayer(nn.Module):
    """Eight operations side by side, each weighted, then mixed by a 1x1 convolution; residual."""

    def __init__(self) -> None:
        super().__init__()
        separable = [nn.Sequential(*_pair(kernel), nn.ReLU(), *_pair(kernel)) for kernel in SEPARABLE]
        dilated = [nn.Sequential(*_pair(kernel, dilation=2)) for kernel in DILATED]
        average = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
        self.operations = nn.ModuleList([*separable, *dilated, average])
        self.merge = nn.Conv2d(OPERATIONS * CHANNELS, CHANNELS, 1, bias=False)

    def forward(self, features: Tensor, weights: Tensor) -> Tensor:
        """Refine ``(N, 16, H, W)``; ``weights`` of the operations ``(N, 8)``."""
        scales = weights[..., None, None, None].unbind(1)
        results = [scale * operation(features) for scale, operation in zip(scales, self.operations, strict=True)]
        return F.relu(features + F.relu(self.merge(torch.cat(results, dim=1))))


class OperationGroup(nn.Module):
    """Four layers whose operation weights depend on the group's input, averaged over the image."""

    def __init__(self) -> None:
        super().__init__()
        outputs = LAYERS * OPERATIONS
        self.attention = nn.Sequential(nn.Linear(CHANNELS, 2 * outputs), nn.ReLU(), nn.Linear(2 * outputs, outputs))
        self.enter = nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False)
        self.layers = nn.ModuleList(OperationLayer() for _ in range(LAYERS))

    def forward(self, features: Tensor) -> Tensor:
        """Refine ``(N, 16, H, W)``."""
        weights = self.attention(features.mean(dim=(2, 3))).unflatten(1, (LAYERS, OPERATIONS)).softmax(dim=-1)
        features = F.relu(self.enter(features))
        for number, layer in enumerate(self.layers):
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
        self.head = nn.Conv2d(3, CHANNELS, 3, padding=1, bias=False)
        self.blocks = nn.Sequential(*(ChannelBlock() for _ in range(4)))
        self.groups = nn.Sequential(*(OperationGroup() for _ in range(GROUPS)))
        self.tail = nn.Conv2d(CHANNELS, 3, 3, padding=1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Restore ``(N, 3, H, W)``."""
        restored: Tensor = self.tail(self.groups(self.blocks(self.head(images))))
        return restored


def read_published(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the weights that OWAN's authors published, under the names that :class:`Owan` gives them.

    Only tensors are unpickled.

    Raises:
        ValueError: no such file, no file of tensors, or weights of another network.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file; expected OWAN's published weights (model_best.pth)")
    try:
        published = dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch raises nearly anything
        raise ValueError(f"{path}: not a file of PyTorch tensors ({type(error).__name__})") from None
    state = {_renamed(str(name)): value for name, value in published.items()}
    expected = {name: value.shape for name, value in Owan().state_dict().items()}
    odd = sorted(name for name in {*state, *expected} if getattr(state.get(name), "shape", None) != expected.get(name))
    if odd:
        raise ValueError(f"{path}: weights of another network than OWAN ({odd[0]}); expected its model_best.pth")
    return state


def _renamed(name: str) -> str:
    for pattern, replacement in PUBLISHED_NAMES:
        name, found = re.subn(pattern, replacement, name)
        if found:
            break
    return name
