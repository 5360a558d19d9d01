"""SFT-GAN's discriminator: one logit per image and one per category.

Source: Wang et al., CVPR 2018, arXiv 1804.02815, section 3.3.
"""

from __future__ import annotations

from torch import Tensor, nn

from sr_models.discriminators.discriminator import Discriminator, DiscriminatorOutput
from sr_models.discriminators.semantic_fusion import PUBLISHED_WIDTH, SLOPE
from sr_models.prior.categories import CATEGORIES

_POOLED, _HIDDEN = 6, 100


class VGGDiscriminator(Discriminator):
    """VGG style, batch norm, a head for "real" and a head for the categories.

    Made for crops of 96x96, whose features are 6x6 before the heads; other sizes are brought to 6x6 by adaptive average
    pooling. Batch norm always takes the statistics of the batch and keeps none.

    Args:
        semantics: None; it has no fusion blocks.
        width: of the first layers (64 as published); the last ones are eight times as wide.

    Raises:
        ValueError: semantics are to be fused.
    """

    def __init__(self, semantics: int | None = None, width: int = PUBLISHED_WIDTH) -> None:
        if semantics is not None:
            raise ValueError('the "vgg" discriminator takes no semantics: use "patch" or "pixel", or no semantics')
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
            for outputs in (1, len(CATEGORIES))
        )

    def logits(self, images: Tensor, semantics: Tensor | None) -> DiscriminatorOutput:
        """Compute the logits of both heads."""
        features = self.features(images)
        return DiscriminatorOutput(self.real_head(features), self.category_head(features))


def _normed(inputs: int, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs, track_running_stats=False),
        nn.LeakyReLU(SLOPE),
    ]
