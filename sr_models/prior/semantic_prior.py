"""The semantic prior: predicts each category's probability at every high-resolution pixel from a low-resolution image.

Source: Wang et al., CVPR 2018 (SFT-GAN), section 3.2: a segmentation network on the bicubically upscaled image. Theirs
is a dilated ResNet-101; this one is SqueezeNet's trunk with a small decoder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore_env.errors import ImageRestoreError
from restore_env.toolbox import bicubic_upscale
from sr_models.extractors.squeezenet import FIRES, WIDTHS, SqueezeNet
from sr_models.generators import UPSCALE
from sr_models.prior.categories import CATEGORIES

MAX_INPUT_PIXELS = 2**19
"""Larger inputs are shrunk to this size: the categories are recognised as well there."""
TOLERANCE = 1e-3
"""Allowed error of the sum of a pixel's probabilities."""


class PriorError(ImageRestoreError):
    """A prior that cannot be loaded; the message names the file and says what is wrong, in one line."""


@runtime_checkable
class Prior(Protocol):
    """Interface of a prior: low-resolution RGB ``(N, 3, H, W)`` in, probabilities ``(N, 8, 4H, 4W)`` out."""

    def __call__(self, images: Tensor, /) -> Tensor:
        """Return the probability maps."""


class Decoder(nn.Module):
    """From SqueezeNet's features at 1/16, 1/8 and 1/4 of the size to one map per category at 1/4.

    Context comes from dilated convolutions, not from pooling over the image: a position's scores depend on about 200
    pixels to every side, in a patch as in a photograph. The features of a position are divided by their root mean
    square, because those of the ImageNet weights differ a hundredfold between the depths.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.from_16 = nn.Conv2d(WIDTHS[3], width, 1)
        self.near = nn.Conv2d(width, width, 3, padding=2, dilation=2)
        self.far = nn.Conv2d(width, width, 3, padding=4, dilation=4)
        self.from_8 = nn.Conv2d(WIDTHS[2], width, 1)
        self.join_8 = nn.Conv2d(width, width, 3, padding=1)
        self.from_4 = nn.Conv2d(WIDTHS[1], width, 1)
        self.join_4 = nn.Conv2d(width, width, 3, padding=1)
        self.scores = nn.Conv2d(width, len(CATEGORIES), 1)
        for module in self.children():
            assert isinstance(module, nn.Conv2d)
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            assert module.bias is not None
            nn.init.zeros_(module.bias)
        nn.init.zeros_(self.scores.weight)

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        """Scores before the softmax, ``(N, 8, h, w)`` of the size of ``features[1]``."""
        at_4, at_8, at_16 = (_normalised(depth) for depth in features[1:])
        context = F.relu(self.from_16(at_16))
        context = context + F.relu(self.near(context))
        context = context + F.relu(self.far(context))
        context = F.relu(self.join_8(_resized(context, at_8) + self.from_8(at_8)))
        context = F.relu(self.join_4(_resized(context, at_4) + self.from_4(at_4)))
        scores: Tensor = self.scores(context)
        return scores


class SemanticPrior(nn.Module):
    """The prior network, 0.93 M parameters; random weights until some are loaded.

    Args:
        recipe: how it was trained, as plain numbers and strings.
    """

    macs_per_pixel: float
    """Multiply-accumulates per pixel of a low-resolution image whose input is not shrunk."""

    def __init__(self, recipe: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.recipe = dict(recipe or {})
        self.trunk = SqueezeNet()
        self.decoder = Decoder()
        self.macs_per_pixel = _macs_per_pixel(self)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the probability of each category.

        An input of more than `MAX_INPUT_PIXELS` is shrunk to that size, so that memory and time are bounded (beside the
        result of 8 floats per pixel).

        Args:
            images: ``(N, 3, H, W)`` float low-resolution RGB in [0, 1], of any size.

        Returns:
            ``(N, 8, 4H, 4W)`` float32, in [0, 1], the sum over the categories being 1.
        """
        height, width = images.shape[-2:]
        scores = self.scores(images).float()
        scores = F.interpolate(scores, size=(UPSCALE * height, UPSCALE * width), mode="bilinear", align_corners=False)
        return scores.softmax(dim=1)

    def scores(self, images: Tensor) -> Tensor:
        """Scores before the softmax, at a quarter of the network input's size: ``(N, 8, about H, about W)``."""
        scores: Tensor = self.decoder(self.trunk(network_input(images)))
        return scores


def network_input(images: Tensor) -> Tensor:
    """The network's input: the image upscaled x4, or, if that were too large, to :data:`MAX_INPUT_PIXELS`."""
    height, width = images.shape[-2:]
    side = UPSCALE * math.sqrt(height * width)
    if side**2 <= MAX_INPUT_PIXELS:
        return bicubic_upscale(images, UPSCALE)
    factor = UPSCALE * math.sqrt(MAX_INPUT_PIXELS) / side
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    return F.interpolate(images, size=size, mode="bicubic", antialias=True)


def check_maps(maps: Tensor, images: Tensor) -> Tensor:
    """Return ``maps`` if they can be a prior for ``images``.

    Args:
        maps: ``(N, 8, 4H, 4W)`` probabilities, their sum over the categories 1 (to within 1e-3).
        images: ``(N, 3, H, W)`` low-resolution RGB.

    Raises:
        ValueError: another type or shape, values that are negative or not finite, or that do not sum to 1.
    """
    if not isinstance(maps, Tensor) or not maps.is_floating_point():
        raise ValueError("prior maps must be a float tensor: torch.from_numpy(maps).float()")
    count, _, height, width = images.shape
    expected = (count, len(CATEGORIES), UPSCALE * height, UPSCALE * width)
    if tuple(maps.shape) != expected:
        raise ValueError(
            f"prior maps of shape {tuple(maps.shape)}: expected {expected}, {UPSCALE} times as large as the images,"
            f" a channel each for {', '.join(CATEGORIES)}"
        )
    if not bool(torch.isfinite(maps).all()):
        raise ValueError("prior maps hold values that are not finite (NaN or infinity)")
    if float(maps.min()) < 0:
        raise ValueError(f"prior maps hold the negative value {float(maps.min()):g}: expected probabilities in [0, 1]")
    error = float((maps.sum(dim=1) - 1).abs().max())
    if error > TOLERANCE:
        raise ValueError(
            f"prior maps do not sum to 1 over the categories: a pixel is {error:g} off; take a softmax, or divide by"
            " the sum"
        )
    return maps


def _normalised(features: Tensor) -> Tensor:
    return features * torch.rsqrt(features.square().mean(dim=1, keepdim=True) + 1e-4)


def _resized(features: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(features, size=like.shape[-2:], mode="bilinear", align_corners=False)


def _macs_per_pixel(prior: SemanticPrior) -> float:
    """Per pixel of the low-resolution image, which is upscaled x4 first."""
    strides = {"trunk.conv1": 2} | {f"trunk.fire{n}": 4 if n < 4 else 8 if n < 6 else 16 for n in FIRES}
    strides |= {f"decoder.{name}": 16 for name in ("from_16", "near", "far")}
    strides |= {f"decoder.{name}": 8 for name in ("from_8", "join_8")}
    strides |= {f"decoder.{name}": 4 for name in ("from_4", "join_4", "scores")}
    total = 0.0
    for name, module in prior.named_modules():
        if isinstance(module, nn.Conv2d):
            stride = strides[".".join(name.split(".")[:2])]
            total += module.weight.numel() * (UPSCALE / stride) ** 2
    return total
