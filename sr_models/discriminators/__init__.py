"""The discriminators of SFT-GAN and SeD, by name.

All take ``(N, 3, H, W)`` float RGB in [0, 1] of any size from 32x32 and are called as ``D(images, semantics)``; logits
above 0 mean "real". Sources: Wang et al., CVPR 2018, arXiv 1804.02815 (SFT-GAN); Li et al., CVPR 2024, arXiv 2402.19387
(SeD); Wang et al., ICCVW 2021, arXiv 2107.10833 (the U-Net).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from sr_models.discriminators.discriminator import Discriminator
from sr_models.discriminators.sed import PatchDiscriminator, PixelDiscriminator
from sr_models.discriminators.vgg import VGGDiscriminator

DISCRIMINATORS: Mapping[str, Callable[[int | None, int], Discriminator]] = MappingProxyType(
    {"vgg": VGGDiscriminator, "patch": PatchDiscriminator, "pixel": PixelDiscriminator}
)
"""A logit for the image (SFT-GAN's), for each patch or for each pixel (SeD's P and U).

Called as ``DISCRIMINATORS[name](semantics, width)``: the channels of the semantics to fuse, or None, and the width of
the first layer, 64 as published.
"""
