"""Check that a converted network gives the same results as PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore_env.errors import ImageRestoreError

TOLERANCE = 1e-5
"""How far from eager PyTorch a result may be, for values of 0 to 1."""

_SIZES = ((1, 63, 63), (3, 40, 66), (2, 33, 22))  # of the batches that results are compared on: odd and even


class ParityError(ImageRestoreError):
    """A network that cannot be converted, or a conversion of other results; one line."""


def photograph_like(count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Draw images like those that tools restore, ``(N, 3, H, W)`` in [0, 1]: coarse colours with noise of 50 of 255.

    On noise alone some networks' activations are far larger, and so is the rounding, plain PyTorch's included.
    """
    colours = torch.rand(count, 3, 2 + height // 8, 2 + width // 8, generator=generator, dtype=torch.float32)
    smooth = F.interpolate(colours, (height, width), mode="bicubic").clamp(0, 1)
    noise = torch.randn(smooth.shape, generator=generator, dtype=torch.float32)
    return (smooth + 50 / 255 * noise).clamp(0, 1)


@torch.no_grad()
def check_parity(network: nn.Module, runner: Callable[[Tensor], Tensor], what: str) -> float:
    """Compare a network with what is to run in its place, on batches of several sizes (:func:`photograph_like`).

    Args:
        network: on the CPU; it stays as it is.
        runner: takes and returns float32 ``(N, 3, H, W)``.
        what: what runs where, for the message.

    Returns:
        The largest difference.

    Raises:
        ParityError: it is more than :data:`TOLERANCE`, sizes differ, or one of the two fails at a size.
    """
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for count, height, width in _SIZES:
        images = photograph_like(count, height, width, generator)
        try:
            expected, actual = network(images), runner(images)
        except (RuntimeError, ValueError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise ParityError(f"{what}: no result for images {tuple(images.shape)}: {reason}") from None
        if actual.shape != expected.shape:
            raise ParityError(
                f"{what}: returns {tuple(actual.shape)} for {tuple(images.shape)}, PyTorch {tuple(expected.shape)}"
            )
        difference = float((actual - expected).abs().max())
        if not difference <= TOLERANCE:  # so that NaN is refused, too
            raise ParityError(f"{what}: differs from PyTorch by {difference:.2g}, more than {TOLERANCE:g}")
        worst = max(worst, difference)
    return worst
