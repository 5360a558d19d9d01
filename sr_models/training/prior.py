"""Training of the semantic prior on labelled photographs, from low-resolution images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from restore_env.toolbox import usable_device
from sr_models.extractors.squeezenet import load_squeezenet
from sr_models.prior.categories import CATEGORIES, IGNORE
from sr_models.prior.labels import LabelledImages, SegmentationScores, evaluate_prior
from sr_models.prior.semantic_prior import WEIGHTS_FILE, SemanticPrior, save_prior
from sr_models.training.cards import write_prior_card
from sr_models.training.labelled_patches import LabelledBatch, LabelledPatches
from sr_models.training.settings import PriorTraining
from tools_zoo.training.losses import as_tensor
from tools_zoo.training.runs import Validation
from tools_zoo.training.trainer import Report, TrainingResult, digest, train_network

VALIDATION_SECONDS = 90.0
CURVES = {"accuracy/output": "pixel accuracy", "iou/output": "mean IoU"}


def label_error(prior: SemanticPrior, device: str | torch.device = "cpu") -> Callable[[LabelledBatch], Tensor]:
    """The objective: cross-entropy of the maps over the pixels of known category."""

    def objective(batch: LabelledBatch) -> Tensor:
        inputs, targets = batch
        ids = torch.from_numpy(targets).to(device).long()
        scores = prior.scores(as_tensor(inputs, device)).float()
        scores = F.interpolate(scores, size=ids.shape[-2:], mode="bilinear", align_corners=False)
        total = F.cross_entropy(scores, ids, ignore_index=IGNORE, reduction="sum")
        return total / (ids != IGNORE).sum().clamp(min=1)

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
    scores = validate()
    ious = {name: round(float(iou), 4) for name, iou in zip(CATEGORIES, scores.ious, strict=True) if np.isfinite(iou)}
    prior.recipe = {**recipe, "accuracy": round(scores.accuracy, 4), "ious": ious}
    save_prior(prior.eval(), settings.out / WEIGHTS_FILE)
    write_prior_card(settings.out / "README.md", prior, scores)
    return result, scores
