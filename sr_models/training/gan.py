"""The GAN stage: generator and discriminator as one network with one loss, so that one optimiser step trains both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_models.discriminators.registry import DiscriminatorName, make_discriminator
from sr_models.extractors.extractor import Extractor, semantics
from sr_models.generators import UPSCALE
from sr_models.losses.adversarial import ADVERSARIAL_LOSSES, category_loss
from sr_models.losses.perceptual import PerceptualLoss
from sr_models.prior.categories import BACKGROUND
from sr_models.prior.semantic_prior import Prior

CATEGORY_THRESHOLD = 0.5
"""Mean probability above which a crop has a category."""


@dataclass(frozen=True)
class GANConfig:
    """A discriminator and the weights of the losses."""

    discriminator: DiscriminatorName
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
    adversarial_loss: str = "vanilla"
    """A key of :data:`sr_models.losses.adversarial.ADVERSARIAL_LOSSES`."""
    width: int = 64
    """Of the discriminator's first layer; 64 is published."""


class GAN(nn.Module):
    """A generator and its discriminator.

    The loss is the sum of both losses. Each reaches its own weights alone: the generator's goes through a discriminator
    with frozen weights, the discriminator's takes detached outputs.

    Args:
        generator: a x4 super-resolver.
        config: the discriminator and the weights of the losses.
        perceptual: the perceptual loss.
        extractor: gives a semantic discriminator the semantics of the targets.
        prior: gives the category loss the targets' categories.

    Raises:
        ValueError: the configuration needs an extractor or a prior, and none is given.
    """

    def __init__(
        self,
        generator: nn.Module,
        config: GANConfig,
        perceptual: PerceptualLoss,
        extractor: Extractor | None = None,
        prior: Prior | None = None,
    ) -> None:
        super().__init__()
        check_gan(config)
        if config.semantic and extractor is None:
            raise ValueError("a semantic discriminator needs an extractor of semantics")
        if config.category and prior is None:
            raise ValueError("a category loss needs a prior")
        self.generator = generator
        channels = extractor.channels[-1] if config.semantic and extractor is not None else None
        self.discriminator = make_discriminator(config.discriminator, channels, config.width)
        self._config = config
        self._adversarial = ADVERSARIAL_LOSSES[config.adversarial_loss]
        self._frozen = perceptual, extractor, prior  # in a tuple: neither trained nor part of the state

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Compute the sum of the generator's and the discriminator's loss.

        Args:
            outputs: the generator's, ``(N, 3, H, W)`` float RGB.
            targets: the same shape, in [0, 1].
        """
        config, discriminator = self._config, self.discriminator
        perceptual, extractor, prior = self._frozen
        context = semantics(extractor, targets) if config.semantic and extractor is not None else None
        categories = None if prior is None or not config.category else categories_of(prior, targets)
        with _frozen_weights(discriminator):
            real = discriminator(targets, context).real if self._adversarial.uses_real else None
            fake = discriminator(outputs, context)
        adversarial = self._adversarial.generator(fake.real if real is None else real, fake.real)
        loss: Tensor = config.perceptual * perceptual(outputs, targets) + config.adversarial * adversarial
        if config.pixel:
            loss = loss + config.pixel * F.l1_loss(outputs, targets)
        if categories is not None:
            loss = loss + config.category * category_loss(fake.categories, categories)
        real, fake = discriminator(targets, context), discriminator(outputs.detach(), context)
        loss = loss + self._adversarial.discriminator(real.real, fake.real)
        if categories is not None:
            loss = loss + category_loss(real.categories, categories)
        return loss


def check_gan(config: GANConfig) -> None:
    """Raise ``ValueError`` if there is no such discriminator or loss, or they do not go together."""
    make_discriminator(config.discriminator, 32 if config.semantic else None, min(config.width, 1))
    if config.adversarial_loss not in ADVERSARIAL_LOSSES:
        known = ", ".join(ADVERSARIAL_LOSSES)
        raise ValueError(f"unknown adversarial loss {config.adversarial_loss!r}: choose from {known}")
    if config.category and config.discriminator != "vgg":
        raise ValueError(
            f'the {config.discriminator} discriminator has no category head: use "vgg", or a category weight of 0'
        )


@contextmanager
def _frozen_weights(network: nn.Module) -> Iterator[None]:
    """Let gradients through a network, but none to its weights."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)


def categories_of(prior: Prior, targets: Tensor) -> Tensor:
    """The most probable category of each target, ``(N,)`` ids; background where its mean probability is too low."""
    with torch.no_grad():
        small = F.interpolate(targets, scale_factor=1 / UPSCALE, mode="bicubic", antialias=True)
        probability, category = prior(small).mean((2, 3)).max(1)
        return torch.where(probability > CATEGORY_THRESHOLD, category, BACKGROUND)
