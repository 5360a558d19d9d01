"""A fixed number of image slots whose images may differ in size, kept in as few tensors as there are sizes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Slots = npt.NDArray[np.int64]


class Gallery:
    """``n`` slots, each empty or holding one ``(3, H, W)`` image; images of one size share a tensor.

    Args:
        n: number of slots.
        device: where the images are kept.
    """

    def __init__(self, n: int, device: str | torch.device = "cpu") -> None:
        self._device = torch.device(device)
        self._tensors: dict[tuple[int, int], Tensor] = {}
        self._members: dict[tuple[int, int], Slots] = {}
        self._shapes = np.zeros((n, 2), dtype=np.int64)  # (0, 0): empty
        self._rows = np.zeros(n, dtype=np.int64)

    def shapes(self, slots: Slots) -> npt.NDArray[np.int64]:
        """Height and width of the images in ``slots``: ``(len(slots), 2)``."""
        return self._shapes[slots]

    @torch.inference_mode()
    def put(self, slots: Slots, images: Tensor) -> None:
        """Put images ``(len(slots), 3, H, W)`` into slots, in place of what was there."""
        shape = (int(images.shape[-2]), int(images.shape[-1]))
        staying = (self._shapes[slots] == shape).all(axis=1)
        images = images.to(self._device)
        if staying.any():
            rows = self._index(self._rows[slots[staying]])
            chosen = images if staying.all() else images.index_select(0, self._index(np.flatnonzero(staying)))
            self._tensors[shape][rows] = chosen
        if not staying.all():
            moving = slots[~staying]
            self._remove(moving)
            arrived = images.index_select(0, self._index(np.flatnonzero(~staying)))
            known = self._members.get(shape)
            if known is not None:
                arrived = torch.cat([self._tensors[shape], arrived])
                moving = np.concatenate([known, moving])
            self._keep(shape, moving, arrived)

    def groups(self, slots: Slots) -> Iterator[tuple[npt.NDArray[np.int64], Tensor]]:
        """Yield ``(positions, images)`` for each size among ``slots``: the slots' images, not to be changed."""
        shapes = self._shapes[slots]
        if not shapes.all():
            raise ValueError("a slot is empty")
        for shape, images in list(self._tensors.items()):
            positions = np.flatnonzero((shapes == shape).all(axis=1))
            rows = self._rows[slots[positions]]
            if np.array_equal(rows, np.arange(len(images))):
                yield positions, images
            elif len(rows):
                yield positions, images.index_select(0, self._index(rows))

    def image(self, slot: int) -> Tensor:
        """The image ``(3, H, W)`` in one slot, a view."""
        height, width = self._shapes[slot]
        return self._tensors[int(height), int(width)][self._rows[slot]]

    def _remove(self, slots: Slots) -> None:
        for shape in {(int(h), int(w)) for h, w in self._shapes[slots]} - {(0, 0)}:
            members = self._members[shape]
            kept = np.flatnonzero(~np.isin(members, slots))
            self._keep(shape, members[kept], self._tensors[shape].index_select(0, self._index(kept)))

    def _keep(self, shape: tuple[int, int], members: Slots, images: Tensor) -> None:
        if not len(members):
            self._tensors.pop(shape, None)
            self._members.pop(shape, None)
            return
        self._members[shape] = members
        self._tensors[shape] = images
        self._shapes[members] = shape
        self._rows[members] = np.arange(len(members))

    def _index(self, rows: npt.NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(rows).to(self._device)
