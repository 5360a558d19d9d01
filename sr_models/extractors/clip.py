"""The visual trunk of CLIP's ResNet-50 up to its third stage: the semantic extractor as published for SeD.

Source: Radford et al., 2021, arXiv 2103.00020, section 2.4, and its released architecture. A ResNet-50 with three
changes: a stem of three 3x3 convolutions and average pooling; strides by average pooling before a convolution of stride
1 (anti-aliased), in the shortcut too; attention pooling at the end, which, like the fourth stage, is left out here.
The weights do not come with this package.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_models.extractors.extractor import load_frozen

STEM = (32, 32, 64)
"""Channels of the three convolutions before the first stage."""
STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2))
"""Width, number of bottlenecks and stride of the stages; four times the width goes out."""
EXPANSION = 4
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of R, G and B in [0, 1], as CLIP's weights expect them."""
_REMEDY = (
    "give the tensors of OpenAI's RN50 (such as open_clip_model.safetensors of timm/resnet50_clip.openai on Hugging"
    " Face), or use SqueezeNet, the default, which needs no file"
)


class Bottleneck(nn.Module):
    """1x1, 3x3, average pooling instead of a stride, 1x1; each with batch norm; and the shortcut."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = EXPANSION * width
        self.stride = stride
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.downsample: nn.ModuleDict | None = None
        if stride > 1 or inputs != outputs:
            convolution = nn.Conv2d(inputs, outputs, 1, bias=False)
            self.downsample = nn.ModuleDict({"0": convolution, "1": nn.BatchNorm2d(outputs)})

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, 4 * width, H / stride, W / stride)``, rounded down."""
        inner = F.relu(self.bn1(self.conv1(features)))
        inner = self._pooled(F.relu(self.bn2(self.conv2(inner))))
        inner = self.bn3(self.conv3(inner))
        if self.downsample is not None:
            features = self.downsample["1"](self.downsample["0"](self._pooled(features)))
        return F.relu(inner + features)

    def _pooled(self, features: Tensor) -> Tensor:
        return F.avg_pool2d(features, self.stride) if self.stride > 1 else features


class CLIPResNet50(nn.Module):
    """Stem and stages 1 to 3, giving the features after each stage; random weights until some are loaded.

    It stays in evaluation mode, so that its batch norm uses the published statistics inside a network that trains.
    """

    mean: Tensor
    std: Tensor
    channels = tuple(EXPANSION * width for width, _, _ in STAGES)

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(CLIP_MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(CLIP_STD).reshape(1, 3, 1, 1), persistent=False)
        inputs = 3
        for number, width in enumerate(STEM, start=1):
            stride = 2 if number == 1 else 1
            self.add_module(f"conv{number}", nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False))
            self.add_module(f"bn{number}", nn.BatchNorm2d(width))
            inputs = width
        for number, (width, count, stride) in enumerate(STAGES, start=1):
            blocks = []
            for index in range(count):
                blocks.append(Bottleneck(inputs, width, stride if index == 0 else 1))
                inputs = EXPANSION * width
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        self.eval()

    def train(self, mode: bool = True) -> CLIPResNet50:
        """Stay in evaluation mode, whatever ``mode``."""
        return super().train(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute the features at three depths.

        Args:
            images: ``(N, 3, H, W)`` float RGB in [0, 1], height and width 16 or more.

        Returns:
            Three maps of 256, 512, 1024 channels at 1/4, 1/8, 1/16 of the size, rounded down: of 256x256 the last is
            16x16.
        """
        features = (images - self.mean) / self.std
        for number in range(1, len(STEM) + 1):
            features = self.get_submodule(f"conv{number}")(features)
            features = F.relu(self.get_submodule(f"bn{number}")(features))
        features = F.avg_pool2d(features, 2)
        depths = []
        for number in range(1, len(STAGES) + 1):
            features = self.get_submodule(f"layer{number}")(features)
            depths.append(features)
        return tuple(depths)


def load_clip(path: str | os.PathLike[str]) -> CLIPResNet50:
    """Load CLIP's RN50 from a local file with OpenAI's names ("visual.conv1.weight"; the prefix may be absent).

    Args:
        path: ``.safetensors``, or a state dict saved by ``torch.save`` (read without unpickling code). Tensors of the
            fourth stage, the attention pool and the text tower are ignored; half precision becomes single.

    Returns:
        The trunk, in evaluation mode, frozen.

    Raises:
        ValueError: the file is missing, damaged, or does not hold the tensors; the message says which file to get.
    """
    return load_frozen(CLIPResNet50, path, "CLIP's RN50", _REMEDY, prefix="visual.")
