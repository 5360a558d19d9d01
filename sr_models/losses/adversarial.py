"""Losses of adversarial training: real against fake, and the category of an image.

Each is a scalar in nats; with all logits 0 each adversarial loss is ln 2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional as F

from sr_models.prior.categories import BACKGROUND, IGNORE
from tools_zoo.training.distributed import averaged


@dataclass(frozen=True)
class AdversarialLoss:
    """The losses of generator and discriminator, given the logits of real and fake images.

    Both are called as ``loss(real, fake)`` with logits of one shape (per image, patch or pixel) and return the mean.
    """

    generator: Callable[[Tensor, Tensor], Tensor]
    discriminator: Callable[[Tensor, Tensor], Tensor]
    uses_real: bool
    """Whether the generator's loss depends on the real logits; if not, they need not be computed for it."""


def _cross_entropy(logits: Tensor) -> Tensor:
    """Binary cross-entropy of logits whose label is "real"."""
    return F.softplus(-logits.float()).mean()


def _vanilla(real: Tensor, fake: Tensor) -> Tensor:
    return (_cross_entropy(real) + _cross_entropy(-fake)) / 2


def _relativistic(real: Tensor, fake: Tensor) -> Tensor:
    real_mean, fake_mean = averaged(real.mean()), averaged(fake.mean())
    return (_cross_entropy(real - fake_mean) + _cross_entropy(real_mean - fake)) / 2


ADVERSARIAL_LOSSES: Mapping[str, AdversarialLoss] = MappingProxyType(
    {
        "vanilla": AdversarialLoss(lambda _, fake: _cross_entropy(fake), _vanilla, uses_real=False),
        "relativistic": AdversarialLoss(lambda real, fake: _relativistic(fake, real), _relativistic, uses_real=True),
    }
)
"""The binary cross-entropy of Goodfellow et al. (2014; the generator's not saturating), and the relativistic average of
Jolicoeur-Martineau (2018, arXiv 1807.00734), which compares each real logit with the mean of the fake ones."""


def category_loss(logits: Tensor, categories: Tensor) -> Tensor:
    """Mean cross-entropy of logits ``(N, categories)`` over the images of a known category but background; 0 if none.

    ``categories`` are int64 ids ``(N,)``. Source: SFT-GAN (Wang et al., CVPR 2018, section 3.3), after AC-GAN.
    """
    ids = torch.where(categories == IGNORE, BACKGROUND, categories)
    total = F.cross_entropy(logits.float(), ids, ignore_index=BACKGROUND, reduction="sum")
    return total / averaged((ids != BACKGROUND).sum().float()).clamp(min=1e-3)  # with none, the total is 0
