"""Training the semantic prior on labelled photographs, as it is used: on low-resolution images, enlarged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from restore_env.distortions.protocol import downscale, gaussian_noise, jpeg, quantize
from restore_env.toolbox import usable_device
from sr_models.extractors.squeezenet import load_squeezenet
from sr_models.generators import UPSCALE as SCALE
from sr_models.prior.categories import CATEGORIES, IGNORE, NAMES
from sr_models.prior.labels import HELD_OUT_EVERY, LabelledImages
from sr_models.prior.loading import save_prior
from sr_models.prior.semantic_prior import Prior, SemanticPrior
from tools_zoo.training.cards import source_version, write_card
from tools_zoo.training.curves import draw_run
from tools_zoo.training.losses import as_tensor
from tools_zoo.training.run_log import summary_writer
from tools_zoo.training.settings import Budget, Schedule
from tools_zoo.training.trainer import Progress, TrainingResult, digest, fit

Labelled = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]
"""Low-resolution RGB ``(N, H, W, 3)`` and the categories' ids ``(N, 4H, 4W)``."""

SIZES = (0.5, 1.5)
"""By what a photograph is resized before a patch is cut, evenly on a logarithmic scale."""
SLIGHT_NOISE, SLIGHT_JPEG = (0.0, 10.0), (50, 100)
"""Sigma (of 255) and quality of the noise and JPEG that a share of the low-resolution patches carries."""
CONTRAST, BRIGHTNESS, TINT = 0.25, 0.15, 0.08
"""By how much, at most, a patch's contrast, brightness and single channels are changed."""
VALIDATIONS = 8
"""So often the photographs kept apart are looked at during a run."""
CURVES = {"held_out/accuracy": "pixel accuracy", "held_out/iou": "mean IoU"}
"""What is drawn of a run's log, and what the picture calls it."""


@dataclass(frozen=True)
class PriorTraining:
    """The settings of ``imagerestore train prior``."""

    out: Path
    """Folder for weights, checkpoint, logs and the model card."""
    budget: Budget
    squeezenet: Path | None = None
    """The trunk's ImageNet weights; None starts from random ones."""
    trunk_speed: float = 0.3
    """The trunk's learning rate, relative to the decoder's, if it starts from ImageNet weights."""
    batch_size: int = 8
    patch_size: int = 256
    """Of the large patches, a multiple of 4; the network sees them at a quarter of this size."""
    slight_share: float = 0.3
    """Share of the patches whose low-resolution image carries slight noise and JPEG."""
    seed: int = 0
    device: str = "cpu"
    workers: int = 1
    command: str = ""
    """The command line, for the model card."""
    schedule: Schedule = field(default_factory=lambda: Schedule(learning_rate=1e-3, clip_norm=1.0, ema_decay=0.995))

    def __post_init__(self) -> None:
        if self.patch_size < 16 or self.patch_size % SCALE:
            raise ValueError(f"patch_size {self.patch_size}: expected a multiple of {SCALE} of 16 or more")
        if not 0 <= self.slight_share <= 1:
            raise ValueError(f"slight_share {self.slight_share}: expected 0 to 1")


@dataclass(frozen=True)
class SegmentationScores:
    """How maps agree with labels, over all pixels whose category is known."""

    confusion: npt.NDArray[np.int64]
    """Pixels ``(8, 8)``: by their own category (rows) and by the one of the highest probability (columns)."""

    @property
    def accuracy(self) -> float:
        """Share of the pixels whose category is found."""
        return float(np.trace(self.confusion) / max(1, self.confusion.sum()))

    @property
    def ious(self) -> npt.NDArray[np.float64]:
        """Each category's intersection over union ``(8,)``; NaN where it is neither there nor found."""
        both = np.diag(self.confusion)
        either = self.confusion.sum(0) + self.confusion.sum(1) - both
        return np.where(either > 0, both / np.maximum(either, 1), np.nan)

    @property
    def mean_iou(self) -> float:
        """The mean over the categories that are there or were found."""
        ious = self.ious
        return float(ious[np.isfinite(ious)].mean()) if np.isfinite(ious).any() else float("nan")


@dataclass(frozen=True)
class PriorProgress:
    """A glance at a run, for display."""

    progress: Progress
    scores: SegmentationScores | None
    """On the photographs kept apart, at the last look; None before the first one."""


class LabelledPatches:
    """Draws labelled patches: a category evenly, an image that shows it, a size, a place in it.

    Args:
        images: labelled photographs.
        indices: which of them.
        patch_size: of the large patch, pixels.
        slight_share: share of the patches whose small image carries slight noise and JPEG.
    """

    def __init__(self, images: LabelledImages, indices: Sequence[int], patch_size: int, slight_share: float) -> None:
        self._images, self._size, self._slight_share = images, patch_size, slight_share
        showing = [[i for i in indices if category.id in images.categories(i)] for category in CATEGORIES]
        self._showing = [rows for rows in showing if rows] or [list(indices)]

    def batch(self, rng: np.random.Generator, count: int) -> Labelled:
        """Draw ``count`` small patches and the categories of the large ones."""
        small = self._size // SCALE
        inputs = np.empty((count, small, small, 3), np.uint8)
        targets = np.empty((count, self._size, self._size), np.uint8)
        for row in range(count):
            rows = self._showing[rng.integers(len(self._showing))]
            image, ids = self._images.pair(rows[rng.integers(len(rows))])
            image, ids = cut_patch(image, ids, self._size, float(np.exp(rng.uniform(*np.log(SIZES)))), rng)
            lowered = downscale(recoloured(image, rng), SCALE)
            if rng.random() < self._slight_share:
                noisy = gaussian_noise(lowered, float(rng.uniform(*SLIGHT_NOISE)), rng)
                inputs[row] = jpeg(quantize(noisy), int(rng.integers(SLIGHT_JPEG[0], SLIGHT_JPEG[1] + 1)))
            else:
                inputs[row] = quantize(lowered)
            targets[row] = ids
        return inputs, targets


def cut_patch(
    image: npt.NDArray[np.uint8], ids: npt.NDArray[np.uint8], size: int, factor: float, rng: np.random.Generator
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Cut a square of ``size`` out of an image resized by ``factor``, mirrored at random, with its categories.

    What is smaller than the square is continued by its mirror image, of unknown category.
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
        before = int(rng.integers(size - resized + 1)), int(rng.integers(size - resized + 1))
        around = [(start, size - resized - start) for start in before]
        image = np.pad(image, [*around, (0, 0)], mode="symmetric")
        ids = np.pad(ids, around, constant_values=IGNORE)
    return image, ids


def recoloured(image: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Change contrast, brightness and tint of a uint8 RGB image a little: float32 in [0, 1]."""
    gain = rng.uniform(1 - CONTRAST, 1 + CONTRAST) * rng.uniform(1 - TINT, 1 + TINT, 3)
    shift = rng.uniform(-BRIGHTNESS, BRIGHTNESS)
    pixels = (image.astype(np.float32) / 255 - 0.5) * gain.astype(np.float32) + np.float32(0.5 + shift)
    return np.asarray(np.clip(pixels, 0, 1), np.float32)


def evaluate_prior(
    prior: Prior, images: LabelledImages, indices: Sequence[int], device: str | torch.device = "cpu"
) -> SegmentationScores:
    """Compare the maps of whole photographs, shrunk to a quarter and given to the prior, with their labels."""
    confusion = np.zeros((len(CATEGORIES), len(CATEGORIES)), np.int64)
    for index in indices:
        image, ids = images.pair(index)
        height, width = (side // SCALE * SCALE for side in ids.shape)
        lowered = quantize(downscale(image[:height, :width].astype(np.float32) / np.float32(255), SCALE))
        with torch.no_grad():
            found = prior(as_tensor(lowered[None], device))[0].argmax(dim=0).cpu().numpy()
        known = ids[:height, :width] != IGNORE
        pairs = ids[:height, :width][known].astype(np.int64) * len(CATEGORIES) + found[known]
        confusion += np.bincount(pairs, minlength=confusion.size).reshape(confusion.shape)
    return SegmentationScores(confusion)


def label_error(prior: SemanticPrior, device: str | torch.device = "cpu") -> Callable[[Labelled], Tensor]:
    """The objective: the cross-entropy of the maps, pixels of unknown category left out."""

    def objective(batch: Labelled) -> Tensor:
        inputs, targets = batch
        ids = torch.from_numpy(targets).to(device).long()
        scores = prior.scores(as_tensor(inputs, device)).float()
        scores = F.interpolate(scores, size=ids.shape[-2:], mode="bilinear", align_corners=False)
        total = F.cross_entropy(scores, ids, ignore_index=IGNORE, reduction="sum")
        return total / (ids != IGNORE).sum().clamp(min=1)

    return objective


def train_prior(
    settings: PriorTraining, images: LabelledImages, report: Callable[[PriorProgress], None] = lambda _: None
) -> tuple[TrainingResult, SegmentationScores]:
    """Train the prior and write ``prior.safetensors``, a learning curve and a model card into ``settings.out``.

    A run that was stopped goes on.

    Returns:
        What training gave, and how the averaged weights do on the photographs kept apart.

    Raises:
        ValueError: the trunk's file is missing or of another network, or a device that cannot be used.
        TrainingError: the folder holds a run with other settings.
    """
    usable_device(settings.device)
    torch.manual_seed(settings.seed)
    prior = SemanticPrior()
    if settings.squeezenet is not None:
        prior.trunk.load_state_dict(load_squeezenet(settings.squeezenet).state_dict())
    start = digest(prior)
    kept, held_out = images.split()
    sampler = LabelledPatches(images, kept, settings.patch_size, settings.slight_share)
    trunk_speed = settings.trunk_speed if settings.squeezenet is not None else 1.0
    logs, checkpoint = settings.out / "logs", settings.out / "checkpoints" / "prior.pt"
    writer = summary_writer(logs)
    looks: list[SegmentationScores] = []
    done = [0]

    def show(now: Progress) -> None:
        due = 0 if now.total is None else VALIDATIONS * now.step // now.total
        if due > done[0]:
            done[0] = due
            prior.eval()
            looks.append(evaluate_prior(prior, images, held_out, settings.device))
            prior.train()
            writer.add_scalar("held_out/accuracy", looks[-1].accuracy, now.step)
            writer.add_scalar("held_out/iou", looks[-1].mean_iou, now.step)
        writer.add_scalar("train/loss", now.loss, now.step)
        writer.add_scalar("train/learning_rate", now.learning_rate, now.step)
        report(PriorProgress(now, looks[-1] if looks else None))

    try:
        fitted = fit(
            prior,
            lambda step: sampler.batch(np.random.default_rng([settings.seed, step]), settings.batch_size),
            label_error(prior, settings.device),
            settings.budget,
            settings.schedule,
            checkpoint,
            speed=lambda name: trunk_speed if name.startswith("trunk.") else 1.0,
            device=settings.device,
            identity={
                "seed": settings.seed,
                "batch_size": settings.batch_size,
                "patch_size": settings.patch_size,
                "slight_share": settings.slight_share,
                "trunk_speed": trunk_speed,
                "start": start,
                "images": len(kept),
            },
            report=show,
            workers=settings.workers,
        )
    finally:
        writer.close()
    draw_run(settings.out / "prior.png", logs, CURVES, "of the photographs kept apart")
    prior.load_state_dict(fitted.state)
    prior.eval()
    scores = evaluate_prior(prior, images, held_out, settings.device)
    prior.recipe = {
        "steps": fitted.steps,
        "seconds": round(fitted.seconds, 1),
        "finished": fitted.finished,
        "seed": settings.seed,
        "batch_size": settings.batch_size,
        "patch_size": settings.patch_size,
        "slight_share": settings.slight_share,
        "precision": settings.schedule.precision,
        "learning_rate": settings.schedule.learning_rate,
        "trunk_speed": trunk_speed,
        "started_from": "random weights" if settings.squeezenet is None else "SqueezeNet 1.1 trained on ImageNet",
        "images": len(kept),
        "held_out": len(held_out) if len(kept) + len(held_out) == len(images) else 0,
        "accuracy": round(scores.accuracy, 4),
        "ious": {n: round(float(i), 4) for n, i in zip(NAMES, scores.ious, strict=True) if np.isfinite(i)},
        "version": source_version(),
        "command": settings.command,
    }
    save_prior(prior, settings.out / "prior.safetensors")
    write_prior_card(settings.out / "README.md", prior, scores)
    return fitted, scores


def write_prior_card(card: Path, prior: SemanticPrior, scores: SegmentationScores) -> None:
    """Write the model card of a prior that :func:`train_prior` made."""
    recipe = prior.recipe
    pixels = scores.confusion.sum(axis=1)
    found = scores.confusion.sum(axis=0)
    lines = ["| category | IoU | share of the pixels | share found |", "|---|---|---|---|"]
    for name, iou, own, got in zip(NAMES, scores.ious, pixels, found, strict=True):
        shares = " | ".join(f"{100 * n / max(1, pixels.sum()):.1f} %" for n in (own, got))
        lines.append(f"| {name} | {'-' if np.isnan(iou) else f'{iou:.3f}'} | {shares} |")
    apart = (
        f"{recipe['held_out']} photographs that were not trained on (of each folder every {HELD_OUT_EVERY}th by name)"
        if recipe["held_out"]
        else "the training photographs themselves"
    )
    size = f"{sum(parameter.numel() for parameter in prior.parameters()) / 1e6:.2f} M parameters"
    cost = f"{prior.macs_per_pixel / 1e3:.0f} k multiply-accumulates"
    slight = f"{100 * recipe['slight_share']:.0f} %"
    rates = f"learning rate {recipe['learning_rate']:g}, the trunk's {recipe['trunk_speed']:g} times it"
    steps = f"{recipe['steps']} steps of {recipe['batch_size']} patches of {recipe['patch_size']} pixels"
    time = f"{recipe['seconds'] / 60:.1f} minutes, {recipe['precision']}, seed {recipe['seed']}"
    text = f"""# Semantic prior

From a low-resolution RGB image in [0, 1], how likely every pixel of the image four times as large is of each of eight
categories ({", ".join(NAMES)}).
{size}, {cost} per low-resolution pixel. Load with `sr_models.prior.semantic_prior.load_prior`.

SqueezeNet 1.1's trunk and a small decoder (`sr_models/prior/semantic_prior.py`), started from {recipe["started_from"]};
trained on patches of {recipe["images"]} labelled photographs shrunk to a quarter (bicubic), {slight} of them with
slight noise and JPEG. Cross-entropy, Adam with warm-up and cosine decay ({rates}),
weights averaged; {steps}, {time}.

Measured on {apart}, whole, shrunk to a quarter:
pixel accuracy {scores.accuracy:.3f}, mean IoU {scores.mean_iou:.3f}.

{chr(10).join(lines)}

```
{recipe["command"]}  # {recipe["version"]}
```
"""
    write_card(card, text)
