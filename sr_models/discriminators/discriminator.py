"""The base of the discriminators: their interface, checks and semantic fusion."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

MIN_CROP = 32
"""Smallest height and width of a crop."""


class DiscriminatorOutput(NamedTuple):
    """The logits of a batch."""

    real: Tensor
    """``(N, 1)`` per image or ``(N, 1, h, w)`` per patch or pixel; above 0 means "real"."""
    categories: Tensor | None = None
    """``(N, categories)``; None without a category head."""


class Discriminator(nn.Module):
    """A network that classifies crops as real or generated, with or without semantics of the real ones.

    Args:
        semantics: channels of the semantics that its fusion blocks take (1024 of CLIP, 512 of SqueezeNet); None for the
            same discriminator without fusion blocks.
    """

    def __init__(self, semantics: int | None = None) -> None:
        super().__init__()
        self.semantics = semantics
        self.fusions = nn.ModuleList()

    def forward(self, images: Tensor, semantics: Tensor | None = None) -> DiscriminatorOutput:
        """Compute the logits.

        Args:
            images: real or generated crops, ``(N, 3, H, W)``.
            semantics: an extractor's deepest features of the real ones; unused without fusion blocks.

        Raises:
            ValueError: the images are not RGB or smaller than 32x32, or the semantics are missing or do not fit.
        """
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < MIN_CROP:
            raise ValueError(
                f"expected RGB crops (N, 3, H, W) of {MIN_CROP}x{MIN_CROP} or more, got {tuple(images.shape)}"
            )
        found = None if semantics is None else tuple(semantics.shape)
        if self.semantics is not None and (not found or len(found) != 4 or found[:2] != (len(images), self.semantics)):
            raise ValueError(
                f"this discriminator fuses semantics: give the extractor's map of the real images ({len(images)},"
                f" {self.semantics}, h, w), got {found}"
            )
        return self.logits(images, semantics)

    def logits(self, images: Tensor, semantics: Tensor | None) -> DiscriminatorOutput:
        """Compute the logits of checked arguments."""
        raise NotImplementedError

    def fuse(self, index: int, features: Tensor, semantics: Tensor | None) -> Tensor:
        """Apply the ``index``-th fusion block, if there are any."""
        fused: Tensor = features if self.semantics is None else self.fusions[index](features, semantics)
        return fused
