"""SeD's two discriminators: patch-wise P, one logit per patch of 70x70, and pixel-wise U, one logit per pixel.

Source: Li et al., CVPR 2024, arXiv 2402.19387, section 3.3; Wang et al., ICCVW 2021, arXiv 2107.10833 (the U-Net).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from sr_models.discriminators.discriminator import Discriminator, DiscriminatorOutput
from sr_models.discriminators.semantic_fusion import PUBLISHED_WIDTH, SLOPE, SemanticFusion, spectral_conv


class PatchDiscriminator(Discriminator):
    """Five 4x4 convolutions, the middle ones with spectral norm; logits ``(N, 1, H/8 - 2, W/8 - 2)``.

    Args:
        semantics: channels of the semantics, or None for none.
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
            for stage, upscale, kernel in ((2, 4, 3), (4, 2, 3), (8, 2, 4)):
                self.fusions.append(SemanticFusion(stage * width, semantics, upscale, width, kernel))

    def logits(self, images: Tensor, semantics: Tensor | None) -> DiscriminatorOutput:
        """Compute a logit per patch."""
        features = F.leaky_relu(self.conv0(images), SLOPE)
        for index, convolution in enumerate((self.conv1, self.conv2, self.conv3)):
            features = self.fuse(index, F.leaky_relu(convolution(features), SLOPE), semantics)
        return DiscriminatorOutput(self.conv4(features))


class PixelDiscriminator(Discriminator):
    """Real-ESRGAN's U-Net of three levels with spectral norm; logits ``(N, 1, H, W)``.

    Args:
        semantics: channels of the semantics, or None for none, as in Real-ESRGAN.
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
            for stage, upscale in ((8, 2), (4, 4), (2, 8)):
                self.fusions.append(SemanticFusion(stage * width, semantics, upscale, width))

    def logits(self, images: Tensor, semantics: Tensor | None) -> DiscriminatorOutput:
        """Compute a logit per pixel."""
        level0 = F.leaky_relu(self.conv0(images), SLOPE)
        level1 = F.leaky_relu(self.down1(level0), SLOPE)
        level2 = F.leaky_relu(self.down2(level1), SLOPE)
        features = F.leaky_relu(self.down3(level2), SLOPE)
        features = self.fuse(0, features, semantics)
        features = self.fuse(1, _upsample_and_add(features, self.up2, level2), semantics)
        features = self.fuse(2, _upsample_and_add(features, self.up1, level1), semantics)
        features = _upsample_and_add(features, self.up0, level0)
        features = F.leaky_relu(self.conv2(F.leaky_relu(self.conv1(features), SLOPE)), SLOPE)
        return DiscriminatorOutput(self.conv3(features))


def _upsample_and_add(features: Tensor, convolution: nn.Module, skip: Tensor) -> Tensor:
    """Resize features to the skip connection's size, convolve and add it."""
    resized = F.interpolate(features, skip.shape[-2:], mode="bilinear", align_corners=False)
    return F.leaky_relu(convolution(resized), SLOPE) + skip
