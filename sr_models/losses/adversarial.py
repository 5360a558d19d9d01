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

IGNORED = (BACKGROUND, IGNORE)
"""Category ids without a texture of their own: background, and pixels without a label."""


@dataclass(frozen=True)
class AdversarialLoss:
    """The losses of generator and discriminator, given the logits of real and fake images.

    Both are called as ``loss(real, fake)`` with logits of one shape (per image, patch or pixel) and return the mean.
    """

    generator: Callable[[Tensor, Tensor], Tensor]
    discriminator: Callable[[Tensor, Tensor], Tensor]
    uses_real: bool
    """Whether the generator's loss depends on the real logits; if not, they need not be computed for it."""


def _real_error(logits: Tensor) -> Tensor:
    """Binary cross-entropy of logits whose label is "real"."""
    return F.softplus(-logits.float()).mean()


def _fake_error(logits: Tensor) -> Tensor:
    return F.softplus(logits.float()).mean()


def _vanilla_generator(_real: Tensor, fake: Tensor) -> Tensor:
    return _real_error(fake)


def _vanilla_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    return (_real_error(real) + _fake_error(fake)) / 2


def _relativistic_generator(real: Tensor, fake: Tensor) -> Tensor:
    return _relativistic_discriminator(fake, real)


def _relativistic_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    return (_real_error(real - fake.mean()) + _fake_error(fake - real.mean())) / 2


ADVERSARIAL_LOSSES: Mapping[str, AdversarialLoss] = MappingProxyType(
    {
        "vanilla": AdversarialLoss(_vanilla_generator, _vanilla_discriminator, uses_real=False),
        "relativistic": AdversarialLoss(_relativistic_generator, _relativistic_discriminator, uses_real=True),
    }
)
"""By name: the binary cross-entropy of Goodfellow et al. (2014; the generator's side not saturating), and the
relativistic average of Jolicoeur-Martineau (2018, arXiv 1807.00734): is the real more real than the fake on average?"""


def category_loss(logits: Tensor, categories: Tensor) -> Tensor:
    """Cross-entropy of the category head, over images of a known category other than background.

    Source: SFT-GAN (Wang et al., CVPR 2018, section 3.3), after AC-GAN.

    Args:
        logits: ``(N, categories)``.
        categories: ``(N,)`` int64 ids; background (0) and unknown (255) are left out.

    Returns:
        A scalar, the mean over the images that count; 0 if none does.

    Raises:
        ValueError: the shapes do not fit, or an id is none of the categories.
    """
    if logits.ndim != 2 or categories.shape != logits.shape[:1]:
        raise ValueError(
            f"expected logits (N, categories) and ids (N,), got {tuple(logits.shape)} and {tuple(categories.shape)}"
        )
    counts = ~torch.isin(categories, torch.tensor(IGNORED, device=categories.device))
    wrong = counts & ((categories < 0) | (categories >= logits.shape[1]))
    if bool(wrong.any()):
        raise ValueError(
            f"unknown category id {int(categories[wrong][0])}; expected 0 to {logits.shape[1] - 1}, or 255 for unknown"
        )
    ids = torch.where(counts, categories, IGNORED[0])
    total = F.cross_entropy(logits.float(), ids, ignore_index=IGNORED[0], reduction="sum")
    return total / counts.sum().clamp(min=1)
