"""The semantic prior: predicts each category's probability at every high-resolution pixel from a low-resolution image.

Source: Wang et al., CVPR 2018 (SFT-GAN), section 3.2: a segmentation network on the bicubically upscaled image. Theirs
is a dilated ResNet-101; this one is SqueezeNet's trunk with a small decoder.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore_env.errors import ImageRestoreError
from restore_env.toolbox import bicubic_upscale, usable_device
from sr_models.complexity import macs_per_pixel
from sr_models.extractors.squeezenet import WIDTHS, SqueezeNet
from sr_models.generators import UPSCALE
from sr_models.prior.categories import CATEGORIES
from tools_zoo.weight_files import load_state, read_weights, recipe_of, write_weights

SHIPPED = Path(__file__).parents[1] / "weights"
"""The folder of the shipped weights."""
WEIGHTS_FILE = "prior.safetensors"
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

    A position's scores depend on about 200 pixels to every side, in a patch as in a photograph: there is no pooling
    over the image. The features of a position are divided by their root mean square, because those of the ImageNet
    weights differ a hundredfold between the depths.
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
        for name, parameter in self.named_parameters():
            if name.endswith("weight"):
                nn.init.kaiming_normal_(parameter, nonlinearity="relu")
            else:
                nn.init.zeros_(parameter)
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

    def __init__(self, recipe: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.recipe = dict(recipe or {})
        self.trunk = SqueezeNet()
        self.decoder = Decoder()
        self.macs_per_pixel = macs_per_pixel(self, torch.zeros(1, 3, 8, 8))
        """Multiply-accumulates per pixel of a low-resolution image whose input is not shrunk."""

    def forward(self, images: Tensor) -> Tensor:
        """Compute the probability of each category.

        Args:
            images: ``(N, 3, H, W)`` float low-resolution RGB in [0, 1], of any size.

        Returns:
            ``(N, 8, 4H, 4W)`` float32, in [0, 1], the sum over the categories being 1.
        """
        height, width = images.shape[-2:]
        scores = self.scores(images).float()
        scores = F.interpolate(scores, size=(UPSCALE * height, UPSCALE * width), mode="bilinear", align_corners=False)
        powers = (scores - scores.amax(1, keepdim=True)).exp()  # softmax() rounds by PyTorch's number of threads
        return powers / powers.sum(1, keepdim=True)

    def scores(self, images: Tensor) -> Tensor:
        """Scores before the softmax, at a quarter of the network input's size: ``(N, 8, about H, about W)``."""
        scores: Tensor = self.decoder(self.trunk(network_input(images)))
        return scores


def network_input(images: Tensor) -> Tensor:
    """The network's input: the image upscaled x4, or, so that memory is bounded, to :data:`MAX_INPUT_PIXELS`."""
    height, width = images.shape[-2:]
    side = UPSCALE * math.sqrt(height * width)
    if side**2 <= MAX_INPUT_PIXELS:
        return bicubic_upscale(images, UPSCALE)
    factor = UPSCALE * math.sqrt(MAX_INPUT_PIXELS) / side
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    return F.interpolate(images, size=size, mode="bicubic", antialias=True)


def load_prior(name_or_path: str | os.PathLike[str] = "default", device: str | torch.device = "cpu") -> SemanticPrior:
    """Load a prior, frozen: the shipped one ("default"), or a safetensors file (or its folder) that training wrote.

    Raises:
        PriorError: the file is missing or damaged, or does not hold this network's weights.
        ValueError: a device that cannot be used.
    """
    device = usable_device(device)
    path = SHIPPED / WEIGHTS_FILE if str(name_or_path) == "default" else Path(name_or_path)
    if path.is_dir():
        path = path / WEIGHTS_FILE
    state, metadata = read_weights(path, PriorError, "'default' or a prior's safetensors file")
    prior = SemanticPrior(recipe_of(metadata, path, PriorError))
    load_state(prior, state, path, "a prior", PriorError)
    return prior.eval().requires_grad_(False).to(device)


def save_prior(prior: SemanticPrior, path: str | os.PathLike[str]) -> None:
    """Write a prior's weights and recipe as a safetensors file, whole or not at all."""
    write_weights(path, prior.state_dict(), {"name": "prior", "recipe": json.dumps(prior.recipe)})


def check_maps(maps: Tensor, images: Tensor) -> Tensor:
    """Return ``maps`` if they are probabilities ``(N, 8, 4H, 4W)`` of categories for ``images`` ``(N, 3, H, W)``.

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
    lowest, error = float(maps.min()), float((maps.sum(dim=1) - 1).abs().max())
    if not lowest >= 0:  # NaN, too
        raise ValueError(f"prior maps hold the value {lowest:g}: expected probabilities in [0, 1]")
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
