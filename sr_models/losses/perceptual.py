"""Perceptual distance, loss and reward: differences between the features of a frozen network.

All take images and targets ``(N, 3, H, W)``, float RGB in [0, 1] of 16x16 or more (values outside are not clipped), and
raise ``ValueError`` for others or two shapes.

Source: Zhang et al., CVPR 2018, arXiv 1801.03924 (LPIPS; here without learned weights), and for the losses SFT-GAN
(Wang et al., CVPR 2018) and SeD (Li et al., CVPR 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from sr_models.extractors.extractor import Extractor
from sr_models.prior.semantic_prior import load_prior

SMALLEST = 16
"""Smallest height and width of images."""
SQUEEZENET_DEPTHS = (0.017, 0.010, 0.014, 0.140)
"""Weights by which SqueezeNet's depths count alike on photographs: a quarter over the mean activation."""
VGG19_CONV5_4 = (0.0, 0.0, 0.0, 0.0, 1.0)
"""Weights of VGG19's depths in SFT-GAN and ESRGAN."""
VGG19_FIVE_DEPTHS = (0.1, 0.1, 1.0, 1.0, 1.0)
"""Weights of VGG19's depths in Real-ESRGAN and SeD."""
_EPSILON = 1e-6  # under the root of a length: features of SqueezeNet are tens to hundreds long


class PerceptualDistance(nn.Module):
    """Distance between the directions of features, at all depths of an extractor.

    At every depth and position the features are brought to unit length over the channels; the squared differences are
    summed over the channels and averaged over the positions, then over the depths (LPIPS, equation 1, with all learned
    weights 1). Lower is better, 0 means identical; two unrelated directions of non-negative features are 2 apart.

    Args:
        extractor: gives the features; freeze it if gradients should reach the images alone.
    """

    def __init__(self, extractor: Extractor) -> None:
        super().__init__()
        self.extractor = extractor

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Compare image by image: ``(N,)`` float32, 0 or more, differentiable with respect to both."""
        _check_pair(images, targets)
        distances = [
            (_unit(one.float()) - _unit(other.float())).square().sum(1).flatten(1).mean(1)
            for one, other in zip(self.extractor(images), self.extractor(targets), strict=True)
        ]
        return torch.stack(distances).mean(0)


class PerceptualLoss(nn.Module):
    """Mean absolute difference between features, at chosen depths: the loss of SFT-GAN, Real-ESRGAN and SeD.

    Args:
        extractor: gives the features: SqueezeNet, or VGG19 as published.
        weights: one per depth of the extractor, 0 to leave a depth out: :data:`SQUEEZENET_DEPTHS` (default),
            :data:`VGG19_CONV5_4` or :data:`VGG19_FIVE_DEPTHS`.

    Raises:
        ValueError: there are more or fewer weights than depths.
    """

    def __init__(self, extractor: Extractor, weights: Sequence[float] = SQUEEZENET_DEPTHS) -> None:
        super().__init__()
        self.extractor = extractor
        self.weights = tuple(weights)
        if len(self.weights) != len(self.extractor.channels):
            raise ValueError(
                f"{len(self.weights)} weights for {len(self.extractor.channels)} depths of the extractor; give one each"
            )

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """The loss of a batch, a scalar; no gradient flows to the targets."""
        _check_pair(images, targets)
        with torch.no_grad():
            expected = self.extractor(targets)
        pairs = zip(self.weights, self.extractor(images), expected, strict=True)
        terms = [weight * (one - other).float().abs().mean() for weight, one, other in pairs if weight]
        return torch.stack(terms).sum()


@lru_cache(maxsize=4)
def shipped_distance(device: torch.device) -> PerceptualDistance:
    """The distance by the trunk of the shipped semantic prior, frozen, on a device; loaded once."""
    return PerceptualDistance(load_prior(device=device).trunk)


def perceptual_quality(images: Tensor, targets: Tensor) -> Tensor:
    """Minus the :class:`PerceptualDistance` by the shipped prior's trunk: higher is better, at most 0.

    Every image is computed by itself, so that its score does not depend on the rest of the batch. Returns ``(N,)``
    float64 without gradients.
    """
    _check_pair(images, targets)
    distance = shipped_distance(images.device)
    with torch.inference_mode():
        pairs = zip(images, targets, strict=True)
        scores = [distance(one[None], other[None]) for one, other in pairs]
        return -torch.cat(scores).double() if scores else images.new_zeros(0, dtype=torch.float64)


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(1, keepdim=True) + _EPSILON).sqrt()


def _check_pair(images: Tensor, targets: Tensor) -> None:
    if images.shape != targets.shape:
        raise ValueError(f"images {tuple(images.shape)} and targets {tuple(targets.shape)} differ in shape")
    if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < SMALLEST:
        raise ValueError(
            f"the perceptual distance needs (N, 3, H, W) of {SMALLEST}x{SMALLEST} or more, got {tuple(images.shape)}"
        )
