"""``imagerestore train sr``: a x4 super-resolver, for PSNR and then against a discriminator."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from agents.command_line import positive_float, positive_int
from agents.commands.arguments import add_common

PSNR_SHARE = 0.6
"""Of the minutes, where both stages are trained."""
PIXEL_PERCEPTUAL = 1.0
"""Weight of SeD's perceptual loss with the pixel-wise discriminator (Li et al., 2024, section 4.1)."""


def register(kinds: Any) -> None:
    """Add ``train sr``."""
    parser = kinds.add_parser(
        "sr",
        help="train a x4 super-resolver, SFT-GAN or SeD: PSNR stage, then GAN stage",
        description="A run that was stopped goes on when repeated.",
    )
    add_common(parser)
    parser.add_argument("--model", choices=("sft", "sed"), required=True, help="which paper's losses and networks")
    parser.add_argument("--stage", choices=("psnr", "gan", "both"), default="both")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=positive_float, help="wall-clock budget of all stages (default 60)")
    budget.add_argument("--steps", type=positive_int, help="steps of each stage, instead of minutes")
    parser.add_argument("--init", type=Path, help="generator weights to start from (default: random)")
    parser.add_argument("--generator", help="another generator: rrdb, or SFT-Net by its conditioning")
    parser.add_argument("--distortion", default="bicubic", help="bicubic (default) or blind")
    parser.add_argument("--crop-size", type=positive_int, default=96, help="pixels of the targets (default 96)")
    parser.add_argument("--batch-size", type=positive_int, default=8)
    parser.add_argument("--learning-rate", type=positive_float, help="default: 1e-3 for PSNR, 2e-4 for the GAN stage")
    parser.add_argument("--prior", default="default", help="shipped (default), a weights file, or segformer:MODEL")
    parser.add_argument("--squeezenet", type=Path, help="ImageNet weights for the losses (default: the prior's trunk)")
    parser.add_argument("--vgg", type=Path, help="VGG19's weights: the perceptual loss as published")
    parser.add_argument("--clip", type=Path, help="CLIP RN50's weights: the semantics of SeD as published")
    parser.add_argument("--discriminator", choices=("vgg", "patch", "pixel"), help="in place of the model's")
    parser.add_argument("--adversarial", choices=("vanilla", "relativistic"), help="loss (default: vanilla)")
    parser.add_argument("--no-semantics", action="store_true", help="the same discriminator, told nothing")
    parser.add_argument("--discriminator-width", type=positive_int, help="of its first layer (published: 64)")
    parser.add_argument(
        "--precision", choices=("fp32", "bf16"), default="fp32", help="bf16 is faster only where the hardware has it"
    )
    parser.add_argument("--workers", type=positive_int, default=1, help="threads that make batches")
    parser.set_defaults(run=train_sr)


def train_sr(arguments: argparse.Namespace) -> int:
    """Run ``imagerestore train sr``."""
    from dataclasses import replace

    from agents.commands.training_display import TrainingDisplay, clean_photographs
    from sr_models.super_resolver import STAGES
    from sr_models.training.frozen_networks import FrozenNetworks
    from sr_models.training.super_resolution import MODELS, SrProgress, SrTraining
    from sr_models.training.super_resolution import train_sr as train
    from tools_zoo.training.cards import command_line
    from tools_zoo.training.settings import Budget

    stages = STAGES if arguments.stage == "both" else (arguments.stage,)
    model = MODELS[arguments.model]
    changes = {
        "discriminator": arguments.discriminator,
        "width": arguments.discriminator_width,
        "semantic": False if arguments.no_semantics else None,
        "adversarial_loss": arguments.adversarial,
        "perceptual": PIXEL_PERCEPTUAL if arguments.discriminator == "pixel" and arguments.model == "sed" else None,
        "category": None if arguments.discriminator in (None, "vgg") else 0.0,
    }
    gan = replace(model.gan, **{key: value for key, value in changes.items() if value is not None})
    minutes = arguments.minutes or 60.0
    shares = {"psnr": PSNR_SHARE, "gan": 1 - PSNR_SHARE} if len(stages) > 1 else dict.fromkeys(stages, 1.0)
    settings = SrTraining(
        out=arguments.out,
        model=arguments.model,
        budgets={
            stage: Budget(minutes=None if arguments.steps else minutes * shares[stage], steps=arguments.steps)
            for stage in stages
        },
        generator=arguments.generator,
        gan=gan,
        init=arguments.init,
        distortion=arguments.distortion,
        crop_size=arguments.crop_size,
        batch_size=arguments.batch_size,
        seed=arguments.seed,
        device=arguments.device,
        workers=arguments.workers,
        command=command_line("imagerestore", sys.argv[1:]),
    ).with_schedule(arguments.learning_rate, arguments.precision)
    source = clean_photographs(arguments, arguments.crop_size)
    frozen = FrozenNetworks.load(arguments.prior, arguments.squeezenet, arguments.vgg, arguments.clip)
    with TrainingDisplay(*stages) as display:

        def show(now: SrProgress) -> None:
            quality = f"{now.psnr_bicubic:.2f} -> {now.psnr_output:.2f} dB, distance {now.distance:.3f}"
            display.show_steps(now.stage, now.progress, quality)

        fitted = train(settings, source, frozen, show)
    for stage, result in fitted.items():
        state = "finished" if result.finished else "out of time; the same command with more minutes goes on"
        print(f"{stage}: {result.steps} steps, {result.seconds:.0f} s, {state}")
    print(f"Weights written to {arguments.out}")
    return 0
