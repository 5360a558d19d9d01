"""Labelled photographs, and evaluation of a semantic prior on them.

A labelled folder holds images, each with a label image of the same size that holds the categories' ids.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from restore_env.distortions.protocol import downscale, quantize
from restore_env.errors import ImageRestoreError
from restore_env.images.cache import PixelCache
from restore_env.images.decoding import read_image
from restore_env.images.sources import pair_folders
from sr_models.generators import UPSCALE
from sr_models.prior.categories import CATEGORIES, IGNORE
from sr_models.prior.semantic_prior import Prior
from tools_zoo.training.losses import as_tensor

MIN_SIZE = 16
"""Pixels that an image's shorter side must have."""
HELD_OUT_EVERY = 5
"""One of this many images of a folder, in the order of their names, is kept for validation."""

_KNOWN = np.isin(np.arange(256), [*range(len(CATEGORIES)), IGNORE])


class LabelError(ImageRestoreError):
    """Labelled photographs that cannot be used; the message names the file and says what is wrong, in one line."""


class LabelledImages:
    """Photographs and their categories, each decoded once and checked.

    Args:
        folders: each holds ``images/`` and ``labels/``; files belong together by their names without the suffix
            (:func:`restore_env.images.sources.pair_folders`). A label image is an 8-bit PNG of one channel whose
            values are the ids of :data:`sr_models.prior.categories.CATEGORIES`, or 255 where the category is unknown.

    Raises:
        LabelError: labels of another size, of more channels or with other ids, an image that is too small, no folder.
        ImageError: a missing or empty folder, a file without its partner, an image that cannot be read.
    """

    def __init__(self, *folders: str | os.PathLike[str]) -> None:
        self._cache = PixelCache()
        self._categories: list[tuple[int, ...]] = []
        self._held_out: list[int] = []
        for folder in folders:
            pairs = pair_folders(Path(folder) / "images", Path(folder) / "labels")
            for row, (image, labels) in enumerate(sorted(pairs, key=lambda pair: pair[0].stem)):
                pixels, ids = read_image(image).pixels, read_labels(labels)
                height, width = pixels.shape[:2]
                if ids.shape != (height, width):
                    raise LabelError(
                        f"{labels}: is {ids.shape[1]}x{ids.shape[0]}, but its image is {width}x{height}; labels must"
                        " have the image's size"
                    )
                if min(height, width) < MIN_SIZE:
                    raise LabelError(f"{image}: {width}x{height} is smaller than {MIN_SIZE} pixels; leave it out")
                self._cache.put(str(len(self)), np.dstack([pixels, ids]))
                if row % HELD_OUT_EVERY == 0:
                    self._held_out.append(len(self))
                self._categories.append(tuple(int(i) for i in np.unique(ids) if i != IGNORE))
        if not self._categories:
            raise LabelError("no labelled folder was given")

    def __len__(self) -> int:
        return len(self._categories)

    def pair(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """An image, uint8 RGB ``(H, W, 3)``, and the id of every pixel's category, uint8 ``(H, W)``; both read-only."""
        both = self._cache.get(str(index))
        return both[..., :3], both[..., 3]

    def categories(self, index: int) -> tuple[int, ...]:
        """The ids of the categories in an image."""
        return self._categories[index]

    def split(self) -> tuple[list[int], list[int]]:
        """The images of training and of validation: every fifth of a folder, the first included, by the files' names.

        With one image in each folder all are both.
        """
        held_out = self._held_out
        return [index for index in range(len(self)) if index not in held_out] or held_out, held_out


def read_labels(path: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    """Read a label image: the id of every pixel's category, uint8 ``(H, W)``; 255 where it is unknown.

    A PNG of indexed colours is read by its indices.

    Raises:
        LabelError: the file is damaged, has more than one channel or 16 bits, or holds an id that is no category's.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            mode, ids = image.mode, np.array(image)
    except Exception as error:  # decoders raise whatever a broken file provokes
        raise LabelError(f"{path}: not a readable PNG ({type(error).__name__})") from None
    if mode not in ("L", "P"):
        raise LabelError(f"{path}: has the mode {mode}; labels are PNGs of one channel of 8 bits (mode L or P)")
    unknown = np.unique(ids[~_KNOWN[ids]])
    if len(unknown):
        known = ", ".join(f"{number} {name}" for number, name in enumerate(CATEGORIES))
        raise LabelError(f"{path}: holds the unknown id {unknown[0]}; expected {known}, or {IGNORE} (unknown)")
    return ids


@dataclass(frozen=True)
class SegmentationScores:
    """How predicted categories agree with labels, over all labelled pixels."""

    confusion: npt.NDArray[np.int64]
    """Pixels ``(8, 8)``, by label (rows) and prediction (columns)."""

    @property
    def accuracy(self) -> float:
        """Share of the pixels whose category is right."""
        return float(np.trace(self.confusion) / max(1, self.confusion.sum()))

    @property
    def ious(self) -> npt.NDArray[np.float64]:
        """Each category's intersection over union ``(8,)``; NaN where it is neither labelled nor predicted."""
        both = np.diag(self.confusion)
        either = self.confusion.sum(0) + self.confusion.sum(1) - both
        return np.where(either > 0, both / np.maximum(either, 1), np.nan)

    @property
    def mean_iou(self) -> float:
        """Mean over the categories that are labelled or predicted."""
        ious = self.ious
        return float(ious[np.isfinite(ious)].mean()) if np.isfinite(ious).any() else float("nan")


def evaluate_prior(
    prior: Prior, images: LabelledImages, indices: Sequence[int], device: str | torch.device = "cpu"
) -> SegmentationScores:
    """Compare a prior's maps of whole photographs, downscaled to a quarter, with their labels."""
    confusion = np.zeros((len(CATEGORIES), len(CATEGORIES)), np.int64)
    for index in indices:
        image, ids = images.pair(index)
        height, width = (side // UPSCALE * UPSCALE for side in ids.shape)
        small = quantize(downscale(image[:height, :width].astype(np.float32) / np.float32(255), UPSCALE))
        with torch.no_grad():
            predicted = prior(as_tensor(small[None], device))[0].argmax(dim=0).cpu().numpy()
        known = ids[:height, :width] != IGNORE
        pairs = ids[:height, :width][known].astype(np.int64) * len(CATEGORIES) + predicted[known]
        confusion += np.bincount(pairs, minlength=confusion.size).reshape(confusion.shape)
    return SegmentationScores(confusion)
