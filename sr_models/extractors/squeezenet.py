"""SqueezeNet 1.1 without its classifier: trunk of the semantic prior, features of the perceptual distance and of SeD.

Source: Iandola et al., 2016, arXiv 1602.07360, and its release 1.1; 723 k parameters. Every convolution and pooling
keeps the borders (padding), so that feature maps of any size line up with the image.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_models.extractors.extractor import load_frozen

SQUEEZES = {2: 16, 3: 16, 4: 32, 5: 32, 6: 48, 7: 48, 8: 64, 9: 64}
"""Fire modules by number: channels of the squeeze layer; each of the two expand layers has four times as many."""
STAGES = ((2, 3), (4, 5), (6, 7, 8, 9))
"""Fire modules between the poolings."""
WIDTHS = (64, 128, 256, 512)
"""Channels of the feature maps, which are 1/2, 1/4, 1/8 and 1/16 of the image's size, rounded up."""
CAFFE_MEAN = (103.939, 116.779, 123.68)
"""What was subtracted from B, G and R in 0..255 when the published weights were trained."""


class Fire(nn.Module):
    """Squeeze to few channels by 1x1, expand by 1x1 and 3x3 side by side."""

    def __init__(self, inputs: int, squeeze: int) -> None:
        super().__init__()
        self.squeeze1x1 = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, 4 * squeeze, 1)
        self.expand3x3 = nn.Conv2d(squeeze, 4 * squeeze, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, 8 * squeeze, H, W)``."""
        squeezed = F.relu(self.squeeze1x1(features))
        return torch.cat([F.relu(self.expand1x1(squeezed)), F.relu(self.expand3x3(squeezed))], dim=1)


class SqueezeNet(nn.Module):
    """The trunk of SqueezeNet 1.1, giving its features at four depths; random weights until some are loaded."""

    mean: Tensor
    channels = WIDTHS

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(CAFFE_MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, stride=2, padding=1)
        inputs = WIDTHS[0]
        for number, squeeze in SQUEEZES.items():
            self.add_module(f"fire{number}", Fire(inputs, squeeze))
            inputs = 8 * squeeze

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Features of ``(N, 3, H, W)`` RGB in [0, 1] at four depths, after the ReLU: :data:`WIDTHS`."""
        features = F.relu(self.conv1(images.flip(1) * 255 - self.mean))
        depths = [features]
        for stage in STAGES:
            features = F.max_pool2d(features, 3, stride=2, padding=1)
            for number in stage:
                features = self.get_submodule(f"fire{number}")(features)
            depths.append(features)
        return tuple(depths)


def load_squeezenet(path: str | os.PathLike[str]) -> SqueezeNet:
    """Load ImageNet's weights of SqueezeNet 1.1, frozen, from a local ``.npz`` of Caffe's names.

    Such as "fire2/squeeze1x1.weight"; the classifier ("conv10") is left out.

    Raises:
        ValueError: the file is missing or damaged, or does not hold SqueezeNet 1.1's tensors.
    """
    return load_frozen(SqueezeNet, path, "SqueezeNet 1.1", "give its ImageNet weights as .npz")
