"""Training of the semantic prior on patches of labelled photographs, from low-resolution images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from restore_env.distortions.protocol import downscale, gaussian_noise, jpeg, quantize
from restore_env.images.arrays import Float, Pixels
from restore_env.toolbox import usable_device
from sr_models.extractors.squeezenet import load_squeezenet
from sr_models.generators import UPSCALE
from sr_models.prior.categories import CATEGORIES, IGNORE
from sr_models.prior.labels import LabelledImages, SegmentationScores, evaluate_prior
from sr_models.prior.semantic_prior import WEIGHTS_FILE, SemanticPrior, save_prior
from sr_models.training.cards import write_prior_card
from sr_models.training.settings import PriorTraining
from tools_zoo.training.distributed import averaged, by_first
from tools_zoo.training.losses import as_tensor
from tools_zoo.training.runs import Validation
from tools_zoo.training.trainer import Report, TrainingResult, digest, train_network

VALIDATION_SECONDS = 90.0
CURVES = {"accuracy/output": "pixel accuracy", "iou/output": "mean IoU"}

LabelledBatch = tuple[Pixels, Pixels]
"""Low-resolution RGB ``(N, H, W, 3)`` and the categories' ids ``(N, 4H, 4W)``."""

SIZES = (0.5, 1.5)
"""Range of the factor by which a photograph is resized before a patch is cut, uniform on a logarithmic scale."""
SLIGHT_NOISE, SLIGHT_JPEG = (0.0, 10.0), (50, 100)
"""Ranges of the noise's sigma (of 255) and of the JPEG quality, for a share of the low-resolution patches."""
CONTRAST, BRIGHTNESS, TINT = 0.25, 0.15, 0.08
"""Largest changes of a patch's contrast, brightness and single channels."""


class LabelledPatches:
    """Draws labelled patches: a category (all equally likely), an image that has it, a size and a place.

    Args:
        images: labelled photographs.
        indices: which of them.
        patch_size: pixels of the high-resolution patch.
        slight_share: share of the patches with slight noise and JPEG.
    """

    def __init__(self, images: LabelledImages, indices: Sequence[int], patch_size: int, slight_share: float) -> None:
        self._images, self._size, self._slight_share = images, patch_size, slight_share
        having = [[i for i in indices if category in images.categories(i)] for category in range(len(CATEGORIES))]
        self._having = [rows for rows in having if rows] or [list(indices)]

    def batch(self, rng: np.random.Generator, count: int) -> LabelledBatch:
        """Draw ``count`` low-resolution patches and the categories of the high-resolution ones."""
        small = self._size // UPSCALE
        inputs = np.empty((count, small, small, 3), np.uint8)
        targets = np.empty((count, self._size, self._size), np.uint8)
        for row in range(count):
            rows = self._having[rng.integers(len(self._having))]
            image, ids = self._images.pair(rows[rng.integers(len(rows))])
            image, ids = cut_patch(image, ids, self._size, float(np.exp(rng.uniform(*np.log(SIZES)))), rng)
            small_image = downscale(change_colors(image, rng), UPSCALE)
            if rng.random() < self._slight_share:
                noisy = gaussian_noise(small_image, float(rng.uniform(*SLIGHT_NOISE)), rng)
                inputs[row] = jpeg(quantize(noisy), int(rng.integers(SLIGHT_JPEG[0], SLIGHT_JPEG[1] + 1)))
            else:
                inputs[row] = quantize(small_image)
            targets[row] = ids
        return inputs, targets


def cut_patch(image: Pixels, ids: Pixels, size: int, factor: float, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
    """Cut a square of ``size`` out of an image resized by ``factor``, mirrored at random, with its categories.

    A smaller image is padded by its mirror image, of unknown category.
    """
    height, width = ids.shape
    side = max(4, min(height, width, round(size / factor)))
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    resized = size if side < min(height, width) else min(size, max(4, round(side * factor)))
    image, ids = (plane[top : top + side, left : left + side] for plane in (image, ids))
    kind = cv2.INTER_AREA if resized < side else cv2.INTER_CUBIC
    image = np.asarray(cv2.resize(image, (resized, resized), interpolation=kind), np.uint8)
    ids = np.asarray(cv2.resize(ids, (resized, resized), interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
    if rng.integers(2):
        image, ids = image[:, ::-1], ids[:, ::-1]
    if resized < size:
        offset = int(rng.integers(size - resized + 1)), int(rng.integers(size - resized + 1))
        margins = [(start, size - resized - start) for start in offset]
        image = np.pad(image, [*margins, (0, 0)], mode="symmetric")
        ids = np.pad(ids, margins, constant_values=IGNORE)
    return image, ids


def change_colors(image: Pixels, rng: np.random.Generator) -> Float:
    """Change contrast, brightness and tint of a uint8 RGB image at random; float32 in [0, 1]."""
    gain = rng.uniform(1 - CONTRAST, 1 + CONTRAST) * rng.uniform(1 - TINT, 1 + TINT, 3)
    shift = rng.uniform(-BRIGHTNESS, BRIGHTNESS)
    pixels = (image.astype(np.float32) / 255 - 0.5) * gain.astype(np.float32) + np.float32(0.5 + shift)
    return np.asarray(np.clip(pixels, 0, 1), np.float32)


def label_error(prior: SemanticPrior, device: str | torch.device = "cpu") -> Callable[[LabelledBatch], Tensor]:
    """The objective: cross-entropy of the maps over the pixels of known category."""

    def objective(batch: LabelledBatch) -> Tensor:
        inputs, targets = batch
        ids = torch.from_numpy(targets).to(device).long()
        scores = prior.scores(as_tensor(inputs, device)).float()
        scores = F.interpolate(scores, size=ids.shape[-2:], mode="bilinear", align_corners=False)
        total = F.cross_entropy(scores, ids, ignore_index=IGNORE, reduction="sum")
        return total / averaged((ids != IGNORE).sum().float()).clamp(min=1e-3)  # with none, the total is 0

    return objective


def train_prior(
    settings: PriorTraining, images: LabelledImages, report: Report = lambda _: None
) -> tuple[TrainingResult, SegmentationScores]:
    """Train the prior and write ``prior.safetensors``, learning curves and a model card into ``settings.out``.

    A run that was stopped goes on.

    Returns:
        The result, and the averaged weights' scores on the validation photographs.

    Raises:
        ValueError: the trunk's file is missing or of another network, or a device that cannot be used.
        TrainingError: the folder holds a run with other settings.
    """
    usable_device(settings.device)
    torch.manual_seed(settings.seed)
    prior = SemanticPrior()
    trunk_speed = 1.0
    if settings.squeezenet is not None:
        prior.trunk.load_state_dict(load_squeezenet(settings.squeezenet).state_dict())
        trunk_speed = settings.trunk_speed
    kept, held_out = images.split()
    sampler = LabelledPatches(images, kept, settings.patch_size, settings.slight_share)

    def validate() -> SegmentationScores:
        prior.eval()
        scores = evaluate_prior(prior, images, held_out, settings.device)
        prior.train()
        return scores

    def measure() -> dict[str, float]:
        scores = validate()
        return {"accuracy/output": scores.accuracy, "iou/output": scores.mean_iou}

    result, recipe = train_network(
        settings,
        "prior",
        prior,
        lambda step: sampler.batch(np.random.default_rng([settings.seed, step]), settings.batch_size),
        label_error(prior, settings.device),
        Validation(measure, VALIDATION_SECONDS, curves=CURVES, label="on the validation photographs"),
        speed=lambda name: trunk_speed if name.startswith("trunk.") else 1.0,
        identity={
            "start": digest(prior),
            "started_from": "random weights" if settings.squeezenet is None else "SqueezeNet 1.1 trained on ImageNet",
            "images": len(kept),
            "held_out": len(held_out) if len(kept) + len(held_out) == len(images) else 0,
        },
        report=report,
    )
    scores = by_first(validate)
    ious = {name: round(float(iou), 4) for name, iou in zip(CATEGORIES, scores.ious, strict=True) if np.isfinite(iou)}
    prior.recipe = {**recipe, "accuracy": round(scores.accuracy, 4), "ious": ious}

    def write() -> None:
        save_prior(prior.eval(), settings.out / WEIGHTS_FILE)
        write_prior_card(settings.out / "README.md", prior, scores)

    by_first(write)
    return result, scores
