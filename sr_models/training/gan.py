"""The GAN stage: generator and discriminator as one network with one loss, so that one optimizer step trains both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_models.discriminators import DISCRIMINATORS
from sr_models.extractors.extractor import Extractor
from sr_models.generators import UPSCALE
from sr_models.losses.adversarial import ADVERSARIAL_LOSSES, category_loss
from sr_models.losses.artefact import artefact_loss
from sr_models.losses.perceptual import PerceptualLoss
from sr_models.prior.categories import BACKGROUND
from sr_models.prior.semantic_prior import Prior

CATEGORY_THRESHOLD = 0.5
"""Mean probability above which a crop has a category."""


@dataclass(frozen=True)
class GANConfig:
    """A discriminator and the weights of the losses.

    Raises:
        ValueError: semantics or a category loss for a discriminator that has no such part.
    """

    discriminator: Literal["vgg", "patch", "pixel"]
    """A key of :data:`sr_models.discriminators.DISCRIMINATORS`."""
    semantic: bool
    """Whether the discriminator takes semantics (SeD)."""
    pixel: float
    """Weight of the mean absolute error."""
    perceptual: float
    """Weight of the perceptual loss."""
    adversarial: float
    """Weight of the adversarial loss."""
    category: float
    """Weight of the category loss."""
    adversarial_loss: Literal["vanilla", "relativistic"] = "vanilla"
    """A key of :data:`sr_models.losses.adversarial.ADVERSARIAL_LOSSES`."""
    width: int = 64
    """Of the discriminator's first layer; 64 is published."""
    artefact: float = 50.0
    """Weight of the artefact loss."""

    def __post_init__(self) -> None:
        DISCRIMINATORS[self.discriminator](32 if self.semantic else None, 1)  # raises if it takes no semantics
        if self.category and self.discriminator != "vgg":
            raise ValueError(
                f"the {self.discriminator} discriminator has no category head: use vgg, or a category weight of 0"
            )


class GAN(nn.Module):
    """A generator and its discriminator.

    The loss is the sum of both losses. Each reaches its own weights alone: the generator's goes through a discriminator
    with frozen weights, the discriminator's takes detached outputs.

    Args:
        generator: a x4 super-resolver.
        config: the discriminator and the weights of the losses.
        perceptual: the perceptual loss.
        extractor: its deepest features of the targets are a semantic discriminator's semantics.
        prior: gives the category loss the targets' categories.
    """

    def __init__(
        self, generator: nn.Module, config: GANConfig, perceptual: PerceptualLoss, extractor: Extractor, prior: Prior
    ) -> None:
        super().__init__()
        self.generator = generator
        channels = extractor.channels[-1] if config.semantic else None
        self.discriminator = DISCRIMINATORS[config.discriminator](channels, config.width)
        self._config = config
        self._frozen = perceptual, extractor, prior  # in a tuple: neither trained nor part of the state

    def loss(self, outputs: Tensor, targets: Tensor, before: Tensor | None = None) -> Tensor:
        """Compute the sum of the generator's and the discriminator's loss.

        Args:
            outputs: the generator's, ``(N, 3, H, W)`` float RGB.
            targets: the same shape, in [0, 1].
            before: what the generator gave at the start of this stage, for the artefact loss.
        """
        config, discriminator = self._config, self.discriminator
        perceptual, extractor, prior = self._frozen
        adversarial = ADVERSARIAL_LOSSES[config.adversarial_loss]
        with torch.no_grad():
            context = extractor(targets)[-1] if config.semantic else None
            categories = categories_of(prior, targets) if config.category else None
        discriminator.requires_grad_(False)
        real = discriminator(targets, context).real if adversarial.uses_real else None
        fake = discriminator(outputs, context)
        discriminator.requires_grad_(True)
        generator_loss = adversarial.generator(fake.real if real is None else real, fake.real)
        loss: Tensor = config.perceptual * perceptual(outputs, targets) + config.adversarial * generator_loss
        if config.pixel:
            loss = loss + config.pixel * F.l1_loss(outputs, targets)
        if config.artefact and before is not None:
            loss = loss + config.artefact * artefact_loss(outputs, targets, before)
        if categories is not None:
            loss = loss + config.category * category_loss(fake.categories, categories)
        real, fake = discriminator(targets, context), discriminator(outputs.detach(), context)
        loss = loss + adversarial.discriminator(real.real, fake.real)
        if categories is not None:
            loss = loss + category_loss(real.categories, categories)
        return loss


@torch.no_grad()
def categories_of(prior: Prior, targets: Tensor) -> Tensor:
    """The most probable category of each target, ``(N,)`` ids; background where its mean probability is too low."""
    small = F.interpolate(targets, scale_factor=1 / UPSCALE, mode="bicubic", antialias=True)
    probability, category = prior(small).mean((2, 3)).max(1)
    return torch.where(probability > CATEGORY_THRESHOLD, category, BACKGROUND)
