"""SeD's semantic-aware fusion block (SeFB): what is shown, and where, joined to a discriminator's features.

Source: Li et al., CVPR 2024, arXiv 2402.19387, section 3.3 and figure 3.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

PUBLISHED_WIDTH = 64
"""Width of the published discriminators, and of the attention in their fusion blocks."""
SLOPE = 0.2
"""Of the discriminators' LeakyReLU."""


def spectral_conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution of spectral norm 1 without bias, padded by 1."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=1, bias=False)
    spectral_norm(convolution)  # in place
    return convolution


class Attention(nn.Module):
    """One head of scaled dot-product attention; queries from one sequence, keys and values from another."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, asking: Tensor, asked: Tensor) -> Tensor:
        """Map ``(N, Q, C)`` and ``(N, K, C)`` to ``(N, Q, C)``."""
        query, key, value = self.query(asking), self.key(asked), self.value(asked)
        answers = F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None])[:, 0]
        answered: Tensor = self.out(answers)
        return answered


class FeedForward(nn.Module):
    """GEGLU (Shazeer, 2020): one half of a projection gates the other by its GELU; four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.expand = nn.Linear(width, 8 * width)
        self.squeeze = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ``(N, Q, C)`` to the same shape."""
        values, gates = self.expand(tokens).chunk(2, dim=-1)
        mixed: Tensor = self.squeeze(values * F.gelu(gates))
        return mixed


class SemanticFusion(nn.Module):
    """The fusion block (SeFB): semantics that have looked at the features are joined to them.

    The semantics attend to themselves, then, as the queries, to the image features; what they found is enlarged by a
    pixel shuffle, concatenated to the features and convolved back to their width. The convolution before the shuffle
    begins at zero: an untrained discriminator does not depend on the semantics. Any sizes fit: where the enlarged map
    does not meet the features' size it is resized bilinearly.

    Args:
        features: channels of the image features.
        semantics: channels of the semantics (1024 of CLIP, 512 of SqueezeNet).
        enlarge: how many times finer than the semantics the features are (a power of two).
        width: of the discriminator; 64 as published. The attention is as wide; of the published ``semantics`` channels
            before the shuffle the share ``width / 64`` is kept.
        kernel: of the convolution after the shuffle; 4 makes the map smaller by one pixel, as a 4x4 convolution of
            stride 1 made the features.
    """

    def __init__(
        self, features: int, semantics: int, enlarge: int, width: int = PUBLISHED_WIDTH, kernel: int = 3
    ) -> None:
        super().__init__()
        found = max(1, semantics * width // (PUBLISHED_WIDTH * enlarge**2))
        self.normalise = nn.GroupNorm(math.gcd(32, semantics), semantics)
        self.semantics_in = nn.Conv2d(semantics, width, 1)
        self.features_in = nn.Conv2d(features, width, 1)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.self_attention, self.cross_attention = Attention(width), Attention(width)
        self.feed_forward = FeedForward(width)
        self.out = nn.Conv2d(width, found * enlarge**2, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]  # it has a bias
        self.enlarge = nn.PixelShuffle(enlarge)
        self.refine = spectral_conv(found, found, kernel)
        self.fuse = spectral_conv(features + found, features, 3)

    def forward(self, features: Tensor, semantics: Tensor) -> Tensor:
        """Map features ``(N, features, H, W)`` and semantics ``(N, semantics, h, w)`` to ``(N, features, H, W)``."""
        # contiguous: the gradient of group norm crashes on channels-last bfloat16 (PyTorch 2.13, CPU)
        reduced = self.semantics_in(self.normalise(semantics.contiguous()))
        height, width = reduced.shape[-2:]
        tokens = reduced.flatten(2).transpose(1, 2)
        seen = self.features_in(features).flatten(2).transpose(1, 2)
        normed = self.norms[0](tokens)
        tokens = tokens + self.self_attention(normed, normed)
        tokens = tokens + self.cross_attention(self.norms[1](tokens), seen)
        tokens = tokens + self.feed_forward(self.norms[2](tokens))
        found = self.out(tokens.transpose(1, 2).unflatten(2, (height, width)))
        found = self.refine(self.enlarge(found))
        if found.shape[-2:] != features.shape[-2:]:
            found = F.interpolate(found, features.shape[-2:], mode="bilinear", align_corners=False)
        return F.leaky_relu(self.fuse(torch.cat([features, found], dim=1)), SLOPE)
