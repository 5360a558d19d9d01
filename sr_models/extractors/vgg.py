"""VGG19's features before the ReLU, for the perceptual losses of SFT-GAN, Real-ESRGAN and SeD.

Source: Simonyan and Zisserman, 2014, arXiv 1409.1556, configuration E. The weights do not come with this package.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_models.extractors.extractor import load_frozen

STAGES = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
"""Channels and number of 3x3 convolutions of the stages; between them, 2x2 max pooling."""
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of R, G and B in [0, 1], as the published weights expect them."""
_REMEDY = (
    "give torchvision's vgg19-dcbb9e9d.pth or its tensors as .safetensors, or use SqueezeNet, the default, which needs"
    " no file"
)


class VGG19(nn.Module):
    """VGG19 up to conv5_4, giving the last convolution of each stage; random weights until some are loaded."""

    mean: Tensor
    std: Tensor
    channels = tuple(width for width, _ in STAGES)

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).reshape(1, 3, 1, 1), persistent=False)
        self.features = nn.ModuleDict()
        inputs, index = 3, 0
        for width, count in STAGES:
            for _ in range(count):
                self.features[str(index)] = nn.Conv2d(inputs, width, 3, padding=1)
                inputs, index = width, index + 2  # the published numbering counts the ReLUs
            index += 1  # and the poolings

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute the features at five depths.

        Args:
            images: ``(N, 3, H, W)`` float RGB in [0, 1], height and width 16 or more.

        Returns:
            conv1_2, conv2_2, conv3_4, conv4_4 and conv5_4, before the ReLU: five maps of 64, 128, 256, 512, 512
            channels at 1, 1/2, 1/4, 1/8, 1/16 of the size, rounded down.
        """
        features = (images - self.mean) / self.std
        convolutions = iter(self.features.values())
        depths: list[Tensor] = []
        for _, count in STAGES:
            if depths:
                features = F.max_pool2d(F.relu(features), 2)
            for number in range(count):
                features = next(convolutions)(F.relu(features) if number else features)
            depths.append(features)
        return tuple(depths)


def load_vgg19(path: str | os.PathLike[str]) -> VGG19:
    """Load VGG19's ImageNet weights from a local file with torchvision's names ("features.0.weight").

    Args:
        path: ``.pth`` (a state dict; read without unpickling code) or ``.safetensors``; the classifier is ignored.

    Returns:
        The network, in evaluation mode, frozen.

    Raises:
        ValueError: the file is missing, damaged, or does not hold VGG19's tensors; the message says which file to get.
    """
    return load_frozen(VGG19, path, "VGG19", _REMEDY)
