"""SeD's patch-wise discriminator P: one logit per patch of 70x70.

Source: Li et al., CVPR 2024, arXiv 2402.19387, section 3.3.
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
