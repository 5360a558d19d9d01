"""The discriminators by name."""

from __future__ import annotations

from typing import Literal

from sr_models.discriminators.discriminator import Discriminator
from sr_models.discriminators.patch import PatchDiscriminator
from sr_models.discriminators.pixel import PixelDiscriminator
from sr_models.discriminators.semantic_fusion import PUBLISHED_WIDTH
from sr_models.discriminators.vgg import VGGDiscriminator

DiscriminatorName = Literal["vgg", "patch", "pixel"]
"""By what has a logit of its own: the image (SFT-GAN's), each patch or each pixel (SeD's P and U)."""


def make_discriminator(
    name: DiscriminatorName, semantics: int | None = None, width: int = PUBLISHED_WIDTH
) -> Discriminator:
    """Build a discriminator with random weights.

    Args:
        name: "vgg" (SFT-GAN's), "patch" (P) or "pixel" (U).
        semantics: channels of the semantics to fuse (``extractor.channels[-1]``), or None.
        width: of the first layer; 64 as published, less to train on a CPU.

    Raises:
        ValueError: an unknown name, a width below 1, or semantics for SFT-GAN's, which has no fusion blocks.
    """
    if width < 1:
        raise ValueError(f"a discriminator's width must be 1 or more, got {width}")
    if name == "vgg":
        if semantics is not None:
            raise ValueError('the "vgg" discriminator takes no semantics; use "patch" or "pixel"')
        return VGGDiscriminator(width)
    if name == "patch":
        return PatchDiscriminator(semantics, width)
    if name == "pixel":
        return PixelDiscriminator(semantics, width)
    raise ValueError(f"unknown discriminator {name!r}; expected vgg, patch or pixel")
