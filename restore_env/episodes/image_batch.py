"""A batch of images of different sizes, stored in one tensor per size."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from restore_env.compute.worker_pool import PIECE_PIXELS

Slots = npt.NDArray[np.int64]


def pieces(count: int, images: Tensor) -> Iterator[slice]:
    """Split ``count`` images into slices of :data:`PIECE_PIXELS` or one image each; on a GPU into one slice.

    Args:
        count: number of images.
        images: a batch of the same size and on the same device.
    """
    step = _together(images) if images.device.type == "cpu" else max(1, count)
    for first in range(0, count, step):
        yield slice(first, first + step)


def _together(images: Tensor) -> int:
    """Number of images of this size in a piece."""
    return max(1, PIECE_PIXELS // max(1, images.shape[-2] * images.shape[-1]))


def rows_of(images: Tensor, rows: npt.NDArray[np.int64]) -> Tensor:
    """Select images: a view if the rows are consecutive, else a copy."""
    first = int(rows[0])
    if np.array_equal(rows, np.arange(first, first + len(rows))):
        return images[first : first + len(rows)]
    return images.index_select(0, _index(rows, images.device))


def _index(rows: npt.NDArray[np.int64], device: torch.device) -> Tensor:
    """Rows as an index of a tensor on ``device``, copied without waiting for the device."""
    index = torch.from_numpy(rows)
    return index.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else index.to(device)


class ImageBatch:
    """``n`` slots, each empty or with one image ``(3, H, W)``; images of one size share a tensor.

    Args:
        n: number of slots.
        device: device of the images.
    """

    def __init__(self, n: int, device: str | torch.device = "cpu") -> None:
        self.n, self._device = n, torch.device(device)
        self._tensors: dict[tuple[int, int], Tensor] = {}
        self._members: dict[tuple[int, int], Slots] = {}
        self._shapes = np.zeros((n, 2), dtype=np.int64)  # (0, 0): empty
        self._rows = np.zeros(n, dtype=np.int64)

    def shapes(self, slots: Slots) -> npt.NDArray[np.int64]:
        """Height and width of the images in ``slots``: ``(len(slots), 2)``."""
        return self._shapes[slots]

    @torch.inference_mode()
    def put(self, slots: Slots, images: Tensor) -> None:
        """Replace the images of slots by ``(len(slots), 3, H, W)``."""
        shape = (int(images.shape[-2]), int(images.shape[-1]))
        staying = (self._shapes[slots] == shape).all(axis=1)
        images = images.to(self._device)
        if staying.any():
            rows = _index(self._rows[slots[staying]], self._device)
            chosen = images if staying.all() else images.index_select(0, _index(np.flatnonzero(staying), self._device))
            self._tensors[shape].index_copy_(0, rows, chosen)
        if not staying.all():
            moving = slots[~staying]
            self._remove(moving)
            arrived = images.index_select(0, _index(np.flatnonzero(~staying), self._device))
            known = self._members.get(shape)
            if known is not None:
                arrived = torch.cat([self._tensors[shape], arrived])
                moving = np.concatenate([known, moving])
            self._keep(shape, moving, arrived)

    def groups(self, slots: Slots) -> Iterator[tuple[npt.NDArray[np.int64], Tensor]]:
        """Yield ``(positions, images)`` for each size among ``slots``; the images must not be changed."""
        for positions, rows, images in self._by_size(slots):
            yield positions, rows_of(images, rows)

    def pieces(self, slots: Slots) -> Iterator[tuple[npt.NDArray[np.int64], Tensor]]:
        """As :meth:`groups`, but on a CPU in pieces (:func:`pieces`)."""
        for positions, rows, images in self._by_size(slots):
            for here in pieces(len(rows), images):
                yield positions[here], rows_of(images, rows[here])

    def portions(self, slots: Slots, workers: int = 1) -> Iterator[npt.NDArray[np.int64]]:
        """Yield positions among ``slots`` of one size: all, or for several workers at most a piece at a time."""
        for positions, rows, images in self._by_size(slots):
            count = len(rows)
            if workers > 1:
                count = max(1, min(_together(images), self.n // (2 * workers)))
            for first in range(0, len(rows), count):
                yield positions[first : first + count]

    def copies(self, slots: Slots) -> Tensor:
        """A copy of the images of slots, all of one size: ``(len(slots), 3, H, W)``."""
        height, width = self._shapes[slots[0]]
        return self._tensors[int(height), int(width)].index_select(0, _index(self._rows[slots], self._device))

    def image(self, slot: int) -> Tensor:
        """The image ``(3, H, W)`` in one slot, a view."""
        height, width = self._shapes[slot]
        return self._tensors[int(height), int(width)][self._rows[slot]]

    def _by_size(self, slots: Slots) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Tensor]]:
        """Yield, for each size among ``slots``, positions, rows in the tensor of that size, and the tensor."""
        shapes = self._shapes[slots]
        if not shapes.all():
            raise ValueError("a slot is empty")
        for shape, images in list(self._tensors.items()):
            positions = np.flatnonzero((shapes == shape).all(axis=1))
            if len(positions):
                yield positions, self._rows[slots[positions]], images

    def _remove(self, slots: Slots) -> None:
        for shape in {(int(h), int(w)) for h, w in self._shapes[slots]} - {(0, 0)}:
            members = self._members[shape]
            kept = np.flatnonzero(~np.isin(members, slots))
            self._keep(shape, members[kept], self._tensors[shape].index_select(0, _index(kept, self._device)))

    def _keep(self, shape: tuple[int, int], members: Slots, images: Tensor) -> None:
        if not len(members):
            self._tensors.pop(shape, None)
            self._members.pop(shape, None)
            return
        self._members[shape] = members
        self._tensors[shape] = images
        self._shapes[members] = shape
        self._rows[members] = np.arange(len(members))
