"""``imagerestore train prior``: the super-resolvers' semantic prior, from labelled photographs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from agents.command_line import positive_float, positive_int, share


def register(kinds: Any) -> None:
    """Add ``train prior``."""
    parser = kinds.add_parser(
        "prior",
        help="train the semantic prior of super-resolution on labelled photographs",
        description="A run that was stopped goes on when repeated.",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        nargs="+",
        required=True,
        metavar="DIR",
        help="folders that hold images/ and labels/: PNGs of the categories' ids, 255 where unknown",
    )
    parser.add_argument("--squeezenet", type=Path, help="SqueezeNet 1.1's weights, .npz (default: random weights)")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights, checkpoint, logs, model card")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, ...")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=positive_float, help="wall-clock budget (default 15)")
    budget.add_argument("--steps", type=positive_int, help="steps, instead of minutes")
    parser.add_argument("--batch-size", type=positive_int, default=8)
    parser.add_argument("--patch-size", type=positive_int, default=256, help="of the large patches (default 256)")
    parser.add_argument("--learning-rate", type=positive_float, default=1e-3)
    parser.add_argument(
        "--trunk-speed",
        type=positive_float,
        default=0.3,
        help="the learning rate of a trunk from --squeezenet, relative to the decoder's (default 0.3)",
    )
    parser.add_argument(
        "--slight-share", type=share, default=0.3, help="share of patches with slight noise and JPEG (default 0.3)"
    )
    parser.add_argument(
        "--precision", choices=("fp32", "bf16"), default="fp32", help="bf16 is faster only where the hardware has it"
    )
    parser.add_argument("--workers", type=positive_int, default=1, help="threads that make batches")
    parser.set_defaults(run=train_prior)


def train_prior(arguments: argparse.Namespace) -> int:
    """Run ``imagerestore train prior``."""
    from dataclasses import replace

    from agents.commands.training_display import TrainingDisplay
    from sr_models.prior.categories import NAMES
    from sr_models.prior.labels import LabelledImages
    from sr_models.training.prior import PriorProgress, PriorTraining
    from sr_models.training.prior import train_prior as train
    from tools_zoo.training.cards import command_line
    from tools_zoo.training.settings import Budget

    settings = PriorTraining(
        out=arguments.out,
        budget=Budget(minutes=None if arguments.steps else arguments.minutes or 15.0, steps=arguments.steps),
        squeezenet=arguments.squeezenet,
        trunk_speed=arguments.trunk_speed,
        batch_size=arguments.batch_size,
        patch_size=arguments.patch_size,
        slight_share=arguments.slight_share,
        seed=arguments.seed,
        device=arguments.device,
        workers=arguments.workers,
        command=command_line("imagerestore", sys.argv[1:]),
    )
    settings = replace(
        settings,
        schedule=replace(settings.schedule, learning_rate=arguments.learning_rate, precision=arguments.precision),
    )
    images = LabelledImages(arguments.labels)
    with TrainingDisplay("prior") as display:

        def show(now: PriorProgress) -> None:
            accuracy = "" if now.scores is None else f", accuracy {100 * now.scores.accuracy:.1f} % kept apart"
            display.show_steps("prior", now.progress, f"loss {now.progress.loss:.3f}{accuracy}")

        fitted, agreement = train(settings, images, show)
    state = "finished" if fitted.finished else "out of time; the same command with more minutes goes on"
    print(f"prior: {fitted.steps} steps, {fitted.seconds:.0f} s, {state}")
    ious = ", ".join(f"{name} {iou:.3f}" for name, iou in zip(NAMES, agreement.ious, strict=True))
    print(f"Kept apart: pixel accuracy {agreement.accuracy:.3f}, mean IoU {agreement.mean_iou:.3f} ({ious})")
    print(f"Prior written to {arguments.out / 'prior.safetensors'}")
    return 0
