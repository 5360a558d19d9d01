"""The GAN stage: generator and discriminator as one network with one loss, so that one descent trains both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_models.discriminators.networks import DiscriminatorName, VGGDiscriminator, make_discriminator
from sr_models.extractors.extractor import Extractor, semantics
from sr_models.losses.adversarial import ADVERSARIAL_LOSSES, category_loss
from sr_models.losses.perceptual import PerceptualLoss
from sr_models.prior.semantic_prior import Prior

SURE = 0.5
"""Mean probability from which a crop is taken to show a category."""


@dataclass(frozen=True)
class DiscriminatorConfig:
    """A discriminator and the weights of the losses; data, so that a comparison changes one field of it."""

    discriminator: DiscriminatorName
    """What it judges: the image and its category ("vgg"), patches, or pixels."""
    semantic: bool
    """Whether the discriminator is told what the image shows (SeD)."""
    pixel: float
    """Weight of the mean absolute error."""
    perceptual: float
    """Weight of the perceptual loss."""
    adversarial: float
    """Weight of the discriminator's verdict."""
    category: float
    """Weight of the category that the discriminator sees."""
    form: str = "vanilla"
    """A key of :data:`sr_models.losses.adversarial.ADVERSARIAL_LOSSES`."""
    width: int = 64
    """Of the discriminator's first layer; 64 is published."""


class GAN(nn.Module):
    """A generator and its discriminator.

    The loss is the sum of both sides' losses. Each side's reaches its own weights alone: the generator's goes through a
    discriminator whose weights are held, the discriminator's sees outputs cut from the generator.

    Args:
        generator: a x4 super-resolver.
        config: the discriminator and the weights of the losses.
        perceptual: compares features.
        extractor: gives a semantic discriminator the semantics of the targets.
        prior: gives a discriminator with a category head the targets' categories.

    Raises:
        ValueError: the discriminator needs an extractor or a prior, and none is given.
    """

    def __init__(
        self,
        generator: nn.Module,
        config: DiscriminatorConfig,
        perceptual: PerceptualLoss,
        extractor: Extractor | None = None,
        prior: Prior | None = None,
    ) -> None:
        super().__init__()
        check_discriminator(config)
        if config.semantic and extractor is None:
            raise ValueError("a semantic discriminator needs an extractor of semantics")
        if config.category and prior is None:
            raise ValueError("a category loss needs a prior that tells the categories")
        self.generator = generator
        channels = extractor.channels[-1] if config.semantic and extractor is not None else None
        self.discriminator = make_discriminator(config.discriminator, channels, config.width)
        self._config = config
        self._adversarial = ADVERSARIAL_LOSSES[config.form]
        self._frozen = perceptual, extractor, prior  # in a tuple: they are neither trained nor kept with the rivals

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Both sides' losses of a batch.

        Args:
            outputs: the generator's, ``(N, 3, H, W)`` float RGB.
            targets: the same shape, in [0, 1].
        """
        config = self._config
        perceptual, extractor, prior = self._frozen
        shown = semantics(extractor, targets) if config.semantic and extractor is not None else None
        categories = None if prior is None or not config.category else categories_of(prior, targets)
        with _frozen_weights(self.discriminator):
            real, _ = self._judge(targets, shown) if self._adversarial.uses_real else (None, None)
            fake, seen = self._judge(outputs, shown)
        verdict = self._adversarial.generator(fake if real is None else real, fake)
        loss: Tensor = config.perceptual * perceptual(outputs, targets) + config.adversarial * verdict
        if config.pixel:
            loss = loss + config.pixel * F.l1_loss(outputs, targets)
        if categories is not None and seen is not None:
            loss = loss + config.category * category_loss(seen, categories)
        (real, seen), (fake, _) = self._judge(targets, shown), self._judge(outputs.detach(), shown)
        loss = loss + self._adversarial.discriminator(real, fake)
        if categories is not None and seen is not None:
            loss = loss + category_loss(seen, categories)
        return loss

    def _judge(self, images: Tensor, shown: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Logits of "real", and of the categories if the discriminator has that head."""
        if isinstance(self.discriminator, VGGDiscriminator):
            return self.discriminator.heads(images)
        logits: Tensor = self.discriminator(images, shown)
        return logits, None


def check_discriminator(config: DiscriminatorConfig) -> None:
    """Raise ``ValueError`` if there is no such discriminator or loss, or the one does not go with the other."""
    make_discriminator(
        config.discriminator,
        32 if config.semantic else None,
        min(config.width, 1),
    )
    if config.form not in ADVERSARIAL_LOSSES:
        raise ValueError(f"unknown adversarial loss {config.form!r}: choose from {', '.join(ADVERSARIAL_LOSSES)}")
    if config.category and config.discriminator != "vgg":
        raise ValueError(f'the {config.discriminator} discriminator tells no categories: "vgg" does, or weigh them 0')


@contextmanager
def _frozen_weights(network: nn.Module) -> Iterator[None]:
    """Let gradients through a network, but none to its weights."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)


def categories_of(prior: Prior, targets: Tensor) -> Tensor:
    """The category that each target shows, ``(N,)`` ids; background (0) where the prior is not sure of one."""
    with torch.no_grad():
        shares = prior(F.interpolate(targets, scale_factor=0.25, mode="bicubic", antialias=True)).mean((2, 3))
        sure, category = shares.max(1)
        return torch.where(sure > SURE, category, 0)
