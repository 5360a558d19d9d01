"""Evaluation of a semantic prior on labelled photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from restore_env.distortions.protocol import downscale, quantize
from sr_models.generators import UPSCALE
from sr_models.prior.categories import CATEGORIES, IGNORE
from sr_models.prior.labels import LabelledImages
from sr_models.prior.semantic_prior import Prior
from tools_zoo.training.losses import as_tensor


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
