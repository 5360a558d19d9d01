"""VGG19's features before the ReLU, for the perceptual losses of SFT-GAN, Real-ESRGAN and SeD.

Source: Simonyan and Zisserman, 2014, arXiv 1409.1556, configuration E. The weights do not come with this package.
"""

from __future__ import annotations

import os

from torch import Tensor, nn

from sr_models.extractors.extractor import IMAGENET_MEAN, IMAGENET_STD, Normalize, load_frozen

STAGES = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
"""Channels and number of 3x3 convolutions of the stages; between them, 2x2 max pooling."""
_REMEDY = (
    "give torchvision's vgg19-dcbb9e9d.pth or its tensors as .safetensors, or use SqueezeNet, the default, which needs"
    " no file"
)


class VGG19(nn.Module):
    """VGG19 up to conv5_4, giving the last convolution of each stage; random weights until some are loaded."""

    channels = tuple(width for width, _ in STAGES)

    def __init__(self) -> None:
        super().__init__()
        self.normalize = Normalize(IMAGENET_MEAN, IMAGENET_STD)
        layers: list[nn.Module] = []
        self._depths: list[int] = []
        inputs = 3
        for width, count in STAGES:
            for _ in range(count):
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
                inputs = width
            self._depths.append(len(layers) - 2)
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers[: self._depths[-1] + 1])

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Features of ``(N, 3, H, W)`` RGB in [0, 1], height and width 16 or more, before the ReLU.

        conv1_2, conv2_2, conv3_4, conv4_4 and conv5_4, at 1, 1/2, 1/4, 1/8 and 1/16 of the size, rounded down.
        """
        features = self.normalize(images)
        depths = []
        for index, layer in enumerate(self.features):
            features = layer(features)
            if index in self._depths:
                depths.append(features)
        return tuple(depths)


def load_vgg19(path: str | os.PathLike[str]) -> VGG19:
    """Load VGG19's ImageNet weights from a local file with torchvision's names ("features.0.weight"), frozen.

    Args:
        path: ``.pth`` (a state dict; read without unpickling code) or ``.safetensors``; the classifier is ignored.

    Raises:
        ValueError: the file is missing, damaged, or does not hold VGG19's tensors; the message says which file to get.
    """
    return load_frozen(VGG19, path, "VGG19", _REMEDY)
