"""Discriminators: SFT-GAN's with its two heads, and those of SeD, which judge patches or pixels, with semantics or not.

All take ``(N, 3, H, W)`` float RGB in [0, 1] of any size from 32x32 and are called as ``D(images, semantics)``; logits
above 0 mean "real". Sources: Wang et al., CVPR 2018, arXiv 1804.02815 (SFT-GAN); Li et al., CVPR 2024, arXiv 2402.19387
(SeD); Wang et al., ICCVW 2021, arXiv 2107.10833 (the U-Net).
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

from torch import Tensor, nn
from torch.nn import functional as F

from sr_models.discriminators.semantic_fusion import PUBLISHED_WIDTH, SLOPE, SemanticFusion, spectral_conv
from sr_models.prior.categories import CATEGORIES

SMALLEST_CROP = 32
"""Height and width from which a crop can be judged."""
_POOLED, _HIDDEN = 6, 100


class DiscriminatorOutput(NamedTuple):
    """What SFT-GAN's discriminator says of a batch."""

    real: Tensor
    """Logits ``(N, 1)``; above 0 means "real"."""
    categories: Tensor
    """Logits ``(N, categories)`` of what the image shows."""


class VGGDiscriminator(nn.Module):
    """SFT-GAN's discriminator: VGG style, batch norm, one verdict per image by each of two heads.

    Made for crops of 96x96, whose features are 6x6 before the heads. Other sizes are brought to 6x6 by adaptive average
    pooling, which leaves those of a 96x96 crop as they are. Batch norm always takes the statistics of the batch
    that it is given, and keeps none.

    Args:
        width: of the first layers (64 as published); the last ones are eight times as wide.
        categories: outputs of the category head.
    """

    def __init__(self, width: int = PUBLISHED_WIDTH, categories: int = len(CATEGORIES)) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), nn.LeakyReLU(SLOPE)]
        inputs = width
        for stage in (1, 2, 4, 8):
            outputs = stage * width
            if outputs != inputs:
                layers += _normed(inputs, outputs, kernel=3, stride=1)
            layers += _normed(outputs, outputs, kernel=4, stride=2)
            inputs = outputs
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(_POOLED), nn.Flatten())
        self.real_head, self.category_head = (
            nn.Sequential(nn.Linear(inputs * _POOLED**2, _HIDDEN), nn.LeakyReLU(SLOPE), nn.Linear(_HIDDEN, outputs))
            for outputs in (1, categories)
        )

    def heads(self, images: Tensor) -> DiscriminatorOutput:
        """Both heads' logits of ``(N, 3, H, W)``.

        Raises:
            ValueError: the images are not RGB, or smaller than 32x32.
        """
        _check_crops(images)
        features = self.features(images)
        return DiscriminatorOutput(self.real_head(features), self.category_head(features))

    def forward(self, images: Tensor, semantics: Tensor | None = None) -> Tensor:
        """Logits ``(N, 1)`` of "real"; semantics are not looked at. See :meth:`heads` for both heads."""
        _check_crops(images)
        logits: Tensor = self.real_head(self.features(images))
        return logits


class _Fusing(nn.Module):
    """A discriminator with fusion blocks, or without any if its ``semantics`` are None."""

    def __init__(self, semantics: int | None) -> None:
        super().__init__()
        self.semantics = semantics
        self.fusions = nn.ModuleList()

    def _fuse(self, index: int, features: Tensor, semantics: Tensor | None) -> Tensor:
        """The features after the ``index``-th fusion block, if there are any."""
        if self.semantics is None:
            return features
        if semantics is None:
            raise ValueError("this discriminator fuses semantics: give the extractor's map of the real images")
        expected = (features.shape[0], self.semantics)
        if semantics.ndim != 4 or semantics.shape[:2] != expected:
            raise ValueError(f"expected semantics ({expected[0]}, {expected[1]}, h, w), got {tuple(semantics.shape)}")
        fused: Tensor = self.fusions[index](features, semantics)
        return fused


class PatchDiscriminator(_Fusing):
    """SeD's patch-wise discriminator P, with or without semantics: a verdict per patch of 70x70.

    Args:
        semantics: channels of the extractor's deepest features (1024 of CLIP, 512 of SqueezeNet), or None for the same
            discriminator without semantics, all else equal.
        width: of the first layer; 64 as published (10.1 M parameters with CLIP, 2.8 M without semantics).
    """

    def __init__(self, semantics: int | None = None, width: int = PUBLISHED_WIDTH) -> None:
        super().__init__(semantics)
        self.conv0 = nn.Conv2d(3, width, 4, stride=2, padding=1)
        self.conv1 = spectral_conv(width, 2 * width, 4, stride=2)
        self.conv2 = spectral_conv(2 * width, 4 * width, 4, stride=2)
        self.conv3 = spectral_conv(4 * width, 8 * width, 4)
        self.conv4 = nn.Conv2d(8 * width, 1, 4, padding=1)
        if semantics is not None:
            self.fusions.append(SemanticFusion(2 * width, semantics, enlarge=4, width=width))
            self.fusions.append(SemanticFusion(4 * width, semantics, enlarge=2, width=width))
            self.fusions.append(SemanticFusion(8 * width, semantics, enlarge=2, width=width, kernel=4))

    def forward(self, images: Tensor, semantics: Tensor | None = None) -> Tensor:
        """Judge ``(N, 3, H, W)``: logits ``(N, 1, H/8 - 2, W/8 - 2)``.

        Args:
            images: real or fake crops.
            semantics: :func:`sr_models.extractors.extractor.semantics` of the real ones; not looked at without fusion
            blocks.

        Raises:
            ValueError: the images are not RGB or smaller than 32x32, or the semantics are missing or do not fit.
        """
        _check_crops(images)
        features = F.leaky_relu(self.conv0(images), SLOPE)
        for index, convolution in enumerate((self.conv1, self.conv2, self.conv3)):
            features = F.leaky_relu(convolution(features), SLOPE)
            features = self._fuse(index, features, semantics)
        logits: Tensor = self.conv4(features)
        return logits


class PixelDiscriminator(_Fusing):
    """SeD's pixel-wise discriminator U, with or without semantics: Real-ESRGAN's U-Net, a verdict per pixel.

    Args:
        semantics: channels of the extractor's deepest features (1024 of CLIP, 512 of SqueezeNet), or None for the same
            discriminator without semantics, all else equal: Real-ESRGAN's.
        width: of the first layer; 64 as published (10.2 M parameters with CLIP, 4.4 M without semantics).
    """

    def __init__(self, semantics: int | None = None, width: int = PUBLISHED_WIDTH) -> None:
        super().__init__(semantics)
        self.conv0 = nn.Conv2d(3, width, 3, padding=1)
        self.down1 = spectral_conv(width, 2 * width, 4, stride=2)
        self.down2 = spectral_conv(2 * width, 4 * width, 4, stride=2)
        self.down3 = spectral_conv(4 * width, 8 * width, 4, stride=2)
        self.up2 = spectral_conv(8 * width, 4 * width, 3)
        self.up1 = spectral_conv(4 * width, 2 * width, 3)
        self.up0 = spectral_conv(2 * width, width, 3)
        self.conv1 = spectral_conv(width, width, 3)
        self.conv2 = spectral_conv(width, width, 3)
        self.conv3 = nn.Conv2d(width, 1, 3, padding=1)
        if semantics is not None:
            for stage, enlarge in ((8, 2), (4, 4), (2, 8)):
                self.fusions.append(SemanticFusion(stage * width, semantics, enlarge, width))

    def forward(self, images: Tensor, semantics: Tensor | None = None) -> Tensor:
        """Judge ``(N, 3, H, W)``: logits ``(N, 1, H, W)``.

        Args:
            images: real or fake crops.
            semantics: :func:`sr_models.extractors.extractor.semantics` of the real ones; not looked at without fusion
            blocks.

        Raises:
            ValueError: the images are not RGB or smaller than 32x32, or the semantics are missing or do not fit.
        """
        _check_crops(images)
        whole = F.leaky_relu(self.conv0(images), SLOPE)
        half = F.leaky_relu(self.down1(whole), SLOPE)
        quarter = F.leaky_relu(self.down2(half), SLOPE)
        features = F.leaky_relu(self.down3(quarter), SLOPE)
        features = self._fuse(0, features, semantics)
        features = self._fuse(1, _upsample_and_add(features, self.up2, quarter), semantics)
        features = self._fuse(2, _upsample_and_add(features, self.up1, half), semantics)
        features = _upsample_and_add(features, self.up0, whole)
        features = F.leaky_relu(self.conv2(F.leaky_relu(self.conv1(features), SLOPE)), SLOPE)
        logits: Tensor = self.conv3(features)
        return logits


Discriminator: TypeAlias = VGGDiscriminator | PatchDiscriminator | PixelDiscriminator
"""Any of them."""
DiscriminatorName = Literal["vgg", "patch", "pixel"]
"""What a verdict is about: the image (SFT-GAN's, with the category head), each patch, or each pixel."""


def make_discriminator(
    name: DiscriminatorName, semantics: int | None = None, width: int = PUBLISHED_WIDTH
) -> Discriminator:
    """A discriminator by name, with random weights.

    Args:
        name: "vgg" (SFT-GAN's), "patch" (P) or "pixel" (U).
        semantics: channels of the semantics to fuse (``extractor.channels[-1]``), or None to judge without.
        width: of the first layer; 64 as published, less to train on a CPU.

    Raises:
        ValueError: an unknown name, a width below 1, or semantics for SFT-GAN's, which has no place for them.
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


def _normed(inputs: int, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs, track_running_stats=False),
        nn.LeakyReLU(SLOPE),
    ]


def _upsample_and_add(features: Tensor, convolution: nn.Module, skipped: Tensor) -> Tensor:
    """Enlarge features to the size of those skipped to, convolve and add them."""
    larger = F.interpolate(features, skipped.shape[-2:], mode="bilinear", align_corners=False)
    return F.leaky_relu(convolution(larger), SLOPE) + skipped


def _check_crops(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < SMALLEST_CROP:
        raise ValueError(
            f"expected RGB crops (N, 3, H, W) of {SMALLEST_CROP}x{SMALLEST_CROP} or more, got {tuple(images.shape)}"
        )
