"""SeD's semantic-aware fusion block (SeFB): fuses semantic features into a discriminator's features.

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

    def forward(self, queries: Tensor, context: Tensor) -> Tensor:
        """Map ``(N, Q, C)`` and ``(N, K, C)`` to ``(N, Q, C)``."""
        query, key, value = self.query(queries), self.key(context), self.value(context)
        attended = F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None])[:, 0]
        projected: Tensor = self.out(attended)
        return projected


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
    """The fusion block (SeFB): attention between semantics and features, then a convolution of both.

    Self-attention of the semantics, then cross-attention with the image features as the context; the result is
    upscaled by a pixel shuffle, concatenated to the features and convolved back to their width. The convolution before
    the shuffle starts at zero: an untrained discriminator does not depend on the semantics. Where the upscaled map does
    not have the features' size it is resized bilinearly.

    Args:
        features: channels of the image features.
        semantics: channels of the semantics (1024 of CLIP, 512 of SqueezeNet).
        upscale: how many times finer than the semantics the features are (a power of two).
        width: of the discriminator; 64 as published. The attention is as wide; of the published ``semantics`` channels
            before the shuffle the share ``width / 64`` is kept.
        kernel: of the convolution after the shuffle; 4 makes the map smaller by one pixel, as a 4x4 convolution of
            stride 1 made the features.
    """

    def __init__(
        self, features: int, semantics: int, upscale: int, width: int = PUBLISHED_WIDTH, kernel: int = 3
    ) -> None:
        super().__init__()
        fused = max(1, semantics * width // (PUBLISHED_WIDTH * upscale**2))
        self.norm_in = nn.GroupNorm(math.gcd(32, semantics), semantics)
        self.semantics_in = nn.Conv2d(semantics, width, 1)
        self.features_in = nn.Conv2d(features, width, 1)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.self_attention, self.cross_attention = Attention(width), Attention(width)
        self.feed_forward = FeedForward(width)
        self.out = nn.Conv2d(width, fused * upscale**2, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]  # it has a bias
        self.shuffle = nn.PixelShuffle(upscale)
        self.refine = spectral_conv(fused, fused, kernel)
        self.fuse = spectral_conv(features + fused, features, 3)

    def forward(self, features: Tensor, semantics: Tensor) -> Tensor:
        """Map features ``(N, features, H, W)`` and semantics ``(N, semantics, h, w)`` to ``(N, features, H, W)``."""
        # contiguous: the gradient of group norm crashes on channels-last bfloat16 (PyTorch 2.13, CPU)
        reduced = self.semantics_in(self.norm_in(semantics.contiguous()))
        height, width = reduced.shape[-2:]
        tokens = reduced.flatten(2).transpose(1, 2)
        context = self.features_in(features).flatten(2).transpose(1, 2)
        normed = self.norms[0](tokens)
        tokens = tokens + self.self_attention(normed, normed)
        tokens = tokens + self.cross_attention(self.norms[1](tokens), context)
        tokens = tokens + self.feed_forward(self.norms[2](tokens))
        fused = self.out(tokens.transpose(1, 2).unflatten(2, (height, width)))
        fused = self.refine(self.shuffle(fused))
        if fused.shape[-2:] != features.shape[-2:]:
            fused = F.interpolate(fused, features.shape[-2:], mode="bilinear", align_corners=False)
        return F.leaky_relu(self.fuse(torch.cat([features, fused], dim=1)), SLOPE)
