"""Whether tools change the colours of an image, or of a part of it, as no restoration would."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

NEIGHBOURHOOD, MIDTONES = 9, (0.25, 0.75)
"""Where colours are compared: where the mean of so many pixels across and down, in a channel, is in this range."""
LEAST_MIDTONES = 500
"""Pixels; a channel with fewer such places is not compared."""
MOST_SHIFT = 1.5
"""Grey levels of 255: a tool that moves the mean of a channel there further from the input's is taken back."""
MOST_CLIPPED = 0.01
"""Largest share of pixels there that tools may newly clip."""


class Colours:
    """The mean of each channel and how much of it is clipped, where an image is neither dark nor bright.

    In shadows and lights noise is clipped, which shifts the mean: there a restoration shifts it back.

    Args:
        image: float RGB ``(1, 3, H, W)``.
        borders: of its tiles, down and across: pixels, from 0 to the whole length.
    """

    def __init__(self, image: Tensor, borders: Sequence[npt.NDArray[np.float64]]) -> None:
        self._rows, self._columns = (np.rint(part).astype(int) for part in borders)
        rows = itertools.pairwise(self._rows.tolist())
        self._midtones = [np.packbits(_midtones(image, top, bottom), axis=-1) for top, bottom in rows]
        self._before = self._of(image)

    def _of(self, image: Tensor) -> npt.NDArray[np.float64]:
        """Of each tile and channel the number of its midtones, their sum, and how many of them are clipped.

        Returns:
            ``(rows, columns, 3, 3)``; the sum in grey levels of 255.
        """
        tiles = []
        for packed, top, bottom in zip(self._midtones, self._rows[:-1], self._rows[1:], strict=True):
            pixels = image[0, :, top:bottom].float()
            inside = torch.from_numpy(np.unpackbits(packed, axis=-1, count=image.shape[3])).bool()
            clipped = ((pixels <= 0) | (pixels >= 1)) & inside
            kinds = inside, pixels.clamp(0, 1).mul_(inside).mul_(255), clipped
            along = np.stack([kind.sum(1, dtype=torch.float64).numpy() for kind in kinds])
            tiles.append(np.add.reduceat(along, self._columns[:-1], axis=2).transpose(2, 0, 1))
        return np.stack(tiles)

    def changed(self, image: Tensor, actions: npt.NDArray[np.int64]) -> set[int]:
        """The actions by which colours differ by more than a restoration would change them.

        Args:
            image: restored.
            actions: of each tile, ``(rows, columns)``; the tiles of an action are compared together.
        """
        after, found = self._of(image), set()
        for action in np.unique(actions).tolist():
            (counts, *before), (_, *now) = (tiles[actions == action].sum(0) for tiles in (self._before, after))
            enough = counts >= LEAST_MIDTONES
            shift, clipped = ((now[kind] - before[kind])[enough] / counts[enough] for kind in (0, 1))
            if (np.abs(shift) > MOST_SHIFT).any() or (clipped > MOST_CLIPPED).any():
                found.add(action)
        return found


def _midtones(image: Tensor, top: int, bottom: int) -> npt.NDArray[np.bool_]:
    """Where colours are compared in some rows of an image ``(1, 3, H, W)``: ``(3, rows, W)``."""
    first = max(0, top - NEIGHBOURHOOD // 2)
    band = image[0, :, first : bottom + NEIGHBOURHOOD // 2].float().numpy()
    sums, ones = [_summed(channel) for channel in band], _summed(np.ones(band.shape[1:], np.float32))
    means = (np.stack(sums) / ones)[:, top - first : bottom - first]
    return np.asarray((means > MIDTONES[0]) & (means < MIDTONES[1]))


def _summed(plane: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The sum of each pixel's neighbourhood, as far as it is inside a plane ``(H, W)``."""
    sides = (NEIGHBOURHOOD, NEIGHBOURHOOD)
    return np.asarray(cv2.boxFilter(plane, -1, sides, normalize=False, borderType=cv2.BORDER_CONSTANT))
