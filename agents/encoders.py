"""Ways of looking at a patch: what an agent sees before its LSTM thinks about it.

Source of the published one: Yu et al., CVPR 2018, section 3.2 and the published checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tools_zoo.networks import ResidualBlock

KERNELS = (9, 5, 5, 5)


class PublishedEncoder(nn.ModuleList):
    """The published way to look at a patch: four convolutions of stride 2, then ``(N, 384)``."""

    embedded = 32
    seeing = 0.2
    """Share of a warm start in which eyes that know nothing learn to tell how strong the distortions are."""
    calibrated: bool | Tensor = False
    """Whether they stay as they are while choices are learnt on what they tell."""
    layout = torch.channels_last
    """Of images in memory: on CPUs learning is a fifth faster so."""

    def __init__(self) -> None:
        widths = (3, 32, 24, 24, 24)
        super().__init__(nn.Conv2d(widths[i], widths[i + 1], kernel, stride=2) for i, kernel in enumerate(KERNELS))
        self.width = widths[-1] * 4 * 4

    def forward(self, images: Tensor) -> Tensor:
        """Look at RGB patches ``(N, 3, 63, 63)`` in [0, 1]."""
        images = images.contiguous(memory_format=self.layout)
        for conv, kernel in zip(self, KERNELS, strict=True):
            images = F.relu(conv(_pad_same(images, kernel)))
        return images.flatten(1)


class PooledEncoder(nn.Module):
    """Residual blocks at 1/2, 1/4 and 1/8 of the resolution; mean and deviation of what they see over the patch.

    How blurred, noisy or blocky a patch is does not depend on where in it one looks. About 32 M multiply-accumulates.
    """

    embedded = 64
    seeing = 0.2
    calibrated: bool | Tensor = False
    layout = torch.channels_last

    def __init__(self) -> None:
        widths = (32, 48, 64)
        super().__init__()
        self.blocks = nn.Sequential(
            nn.Conv2d(12, widths[0], 3, padding=1),
            ResidualBlock(widths[0]),
            nn.Conv2d(widths[0], widths[1], 3, stride=2, padding=1),
            ResidualBlock(widths[1]),
            nn.Conv2d(widths[1], widths[2], 3, stride=2, padding=1),
            ResidualBlock(widths[2]),
        )
        self.width = 2 * widths[-1]
        self.norm = nn.LayerNorm(self.width)

    def forward(self, images: Tensor) -> Tensor:
        """Look at RGB patches ``(N, 3, 63, 63)`` in [0, 1]: ``(N, 128)``."""
        seen = F.pixel_unshuffle(F.pad(images, (0, 1, 0, 1), mode="replicate") - 0.5, 2)
        seen = seen.contiguous(memory_format=self.layout)
        seen = F.relu(self.blocks(seen))
        deviation, mean = torch.std_mean(seen.float().flatten(2), dim=2)
        normed: Tensor = self.norm(torch.cat([mean, deviation], dim=1))
        return normed


class SpectralEncoder(nn.Module):
    """The cosine transform of the luma, in windows all over the patch: how strong each frequency is, how often none.

    Blur empties the high frequencies, noise fills them all, and JPEG, whose own transform this is, sets those that are
    weak to nought. Of 64 frequencies the mean and the deviation of the logarithm over the windows are taken, and how
    often one is missing; two layers tell from them. The transform is not learnt, so learning takes little time. About
    3 M multiply-accumulates.
    """

    embedded = 64
    seeing = 0.35
    calibrated: Tensor
    """True once they are accustomed (:meth:`calibrate`): before that they have not learnt to see."""
    width = 64
    window = 8
    stride = 2
    luma = (0.299, 0.587, 0.114)
    silence = 0.4
    """Magnitudes well below it, in grey levels of 255, are rounding: their logarithm is this one's."""
    farthest = 4.0
    """Deviations from what is usual, in units of their spread, that are larger count as this: a patch of one colour is
    like nothing that was learnt from."""
    kernels: Tensor
    grey_levels: Tensor
    usual: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        size = self.window
        k = np.arange(size)
        waves = np.cos((2 * k + 1) * k[:, None] * np.pi / (2 * size)) * np.sqrt(2 / size)
        waves[0] /= np.sqrt(2)
        kernels = np.einsum("ux,vy->uvxy", waves, waves).reshape(-1, 1, size, size)
        self.register_buffer("kernels", torch.from_numpy(kernels).float(), persistent=False)
        self.register_buffer("grey_levels", 255 * torch.tensor(self.luma)[:, None, None], persistent=False)
        seen = 3 * size**2
        self.register_buffer("calibrated", torch.tensor(False))
        self.register_buffer("usual", torch.tensor([1.5, 1.0, 0.25]).repeat_interleave(size**2))
        self.register_buffer("spread", torch.tensor([1.2, 0.3, 0.25]).repeat_interleave(size**2))
        self.layers = nn.Sequential(nn.Linear(seen, 192), nn.ReLU(), nn.Linear(192, self.width), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        """Look at RGB patches ``(N, 3, H, W)`` in [0, 1], of 8 pixels or more: ``(N, 64)``."""
        unusual = ((self.spectrum(images) - self.usual) / self.spread).clamp(-self.farthest, self.farthest)
        told: Tensor = self.layers(unusual)
        return told

    def calibrate(self, images: Tensor) -> None:
        """Take the spectra of these patches, a hundred or more, as the usual ones: what differs from them is seen.

        For eyes that are about to learn to see; when choices are learnt after that they stay as they are.
        """
        spread, usual = torch.std_mean(self.spectrum(images), dim=0)
        self.usual.copy_(usual)
        self.spread.copy_(spread + 1e-3)
        self.calibrated.fill_(True)

    def spectrum(self, images: Tensor) -> Tensor:
        """Mean and deviation of each frequency's logarithm, and the share of windows that lack it: ``(N, 192)``."""
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):  # bf16 has no 8 bits for grey levels
            grey = (images.float() * self.grey_levels).sum(1, keepdim=True) - 128
            power = F.conv2d(grey, self.kernels, stride=self.stride).flatten(2).square_()
            missing = torch.exp(power.clamp(max=60) / -2).mean(-1)  # beyond, numbers so small that they are slow
            logarithm = torch.log(power + self.silence**2).div_(2)
            mean = logarithm.mean(-1)
            deviation = (logarithm.square_().mean(-1) - mean**2).clamp_(min=0).sqrt_()
            return torch.cat([mean, deviation, missing], dim=1)


Eyes = PublishedEncoder | PooledEncoder | SpectralEncoder
EncoderName = Literal["published", "pooled", "spectral"]
ENCODERS: Mapping[EncoderName, Callable[[], Eyes]] = MappingProxyType(
    {"published": PublishedEncoder, "pooled": PooledEncoder, "spectral": SpectralEncoder}
)
"""The ways to look at a patch."""


def _pad_same(images: Tensor, kernel: int) -> Tensor:
    """Pad with zeros so that a stride of 2 halves the size, rounded up; an odd pixel goes to the right and bottom."""
    missing = [max(0, (-(-size // 2) - 1) * 2 + kernel - size) for size in images.shape[-2:]]
    top, left = missing[0] // 2, missing[1] // 2
    return F.pad(images, (left, missing[1] - left, top, missing[0] - top))
