"""The visual trunk of CLIP's ResNet-50 up to its third stage: the semantic extractor as published for SeD.

Source: Radford et al., 2021, arXiv 2103.00020, section 2.4, and its released architecture. A ResNet-50 with three
changes: a stem of three 3x3 convolutions and average pooling; strides by average pooling before a convolution of stride
1 (anti-aliased), in the shortcut too; attention pooling at the end, which, like the fourth stage, is left out here.
The weights do not come with this package.
"""

from __future__ import annotations

import os
from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional as F

from sr_models.extractors.extractor import Normalize, load_frozen

EXPANSION = 4
"""Output channels of a bottleneck relative to its width."""
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
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.pool = nn.AvgPool2d(stride)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.downsample = nn.Sequential()
        if stride > 1 or inputs != outputs:
            convolution = nn.Conv2d(inputs, outputs, 1, bias=False)
            layers = {"-1": nn.AvgPool2d(stride), "0": convolution, "1": nn.BatchNorm2d(outputs)}  # names as released
            self.downsample = nn.Sequential(OrderedDict(layers))

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, 4 * width, H / stride, W / stride)``, rounded down."""
        inner = F.relu(self.bn1(self.conv1(features)))
        inner = self.pool(F.relu(self.bn2(self.conv2(inner))))
        return F.relu(self.bn3(self.conv3(inner)) + self.downsample(features))


class CLIPResNet50(nn.Module):
    """Stem and stages 1 to 3, giving the features after each stage; random weights until some are loaded."""

    channels = (256, 512, 1024)

    def __init__(self) -> None:
        super().__init__()
        self.normalize = Normalize(CLIP_MEAN, CLIP_STD)
        self.conv1, self.bn1 = nn.Conv2d(3, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32)
        self.conv2, self.bn2 = nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
        self.conv3, self.bn3 = nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64)
        self.layer1 = _stage(64, width=64, count=3, stride=1)
        self.layer2 = _stage(256, width=128, count=4, stride=2)
        self.layer3 = _stage(512, width=256, count=6, stride=2)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Features of ``(N, 3, H, W)`` RGB in [0, 1], height and width 16 or more.

        Three maps at 1/4, 1/8 and 1/16 of the size.
        """
        features = F.relu(self.bn1(self.conv1(self.normalize(images))))
        features = F.relu(self.bn2(self.conv2(features)))
        features = F.relu(self.bn3(self.conv3(features)))
        first = self.layer1(F.avg_pool2d(features, 2))
        second = self.layer2(first)
        return first, second, self.layer3(second)


def _stage(inputs: int, width: int, count: int, stride: int) -> nn.Sequential:
    others = (Bottleneck(EXPANSION * width, width, 1) for _ in range(count - 1))
    return nn.Sequential(Bottleneck(inputs, width, stride), *others)


def load_clip(path: str | os.PathLike[str]) -> CLIPResNet50:
    """Load CLIP's RN50 from a local file with OpenAI's names ("visual.conv1.weight"; the prefix may be absent), frozen.

    Args:
        path: ``.safetensors``, or a state dict saved by ``torch.save`` (read without unpickling code). Tensors of the
            fourth stage, the attention pool and the text tower are ignored; half precision becomes single.

    Raises:
        ValueError: the file is missing, damaged, or does not hold the tensors; the message says which file to get.
    """
    return load_frozen(CLIPResNet50, path, "CLIP's RN50", _REMEDY, prefix="visual.")
