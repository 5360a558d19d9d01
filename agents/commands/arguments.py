"""Command-line arguments that commands share."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from agents.command_line import positive_float, positive_int, severity, share

if TYPE_CHECKING:
    from tools_zoo.training.settings import Schedule


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add what every training command takes."""
    parser.add_argument("--images", type=Path, help="folder of clean photographs (default: the embedded ones)")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights, checkpoints, logs, model card")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, ...")
    parser.add_argument("--cache-dir", type=Path, help="keep the decoded images here for the next run")


def add_backend(parser: argparse.ArgumentParser) -> None:
    """Add what runs the tools: ``--backend``."""
    parser.add_argument(
        "--backend",
        default="torch",
        metavar="NAME",
        help="what runs the tools on a CPU: torch (default), eager, or, with its extra, ncnn, the fastest for the"
        " default tools",
    )


def add_severity(parser: argparse.ArgumentParser) -> None:
    """Add what mixtures of distortions are trained on: ``--severity``."""
    parser.add_argument(
        "--severity",
        type=severity,
        default="moderate",
        help="of the mixtures: mild, moderate (default), severe; light: weaker than mild, of two distortions or three;"
        " any: light to severe, of two as often as of three; single: one distortion alone; or in numbers, 1 to 28, as"
        " 12-13: moderate is 12-17; or several, as 12,17",
    )


def add_clipped_share(parser: argparse.ArgumentParser) -> None:
    """Add how many patches are partly white or black: ``--saturation-prob``."""
    parser.add_argument(
        "--saturation-prob",
        type=share,
        default=0.0,
        help="share of all patches, in validation and an agent's lessons, too, that are lightened or darkened until a"
        " part of them is white or black: noise does other things there (default 0)",
    )


def add_drawing(parser: argparse.ArgumentParser) -> None:
    """Add how training patches are drawn: ``--draws``, ``--workers``."""
    parser.add_argument(
        "--draws",
        choices=("host", "device"),
        default="host",
        help="where patches are distorted: one by one on the host (default), or a batch at once on the device, as a GPU"
        " needs it",
    )
    parser.add_argument("--workers", type=positive_int, default=1, help="threads that make batches")


def add_schedule(parser: argparse.ArgumentParser, rates: Mapping[str, float]) -> None:
    """Add how weights move and to what end: ``--optimizer``, ``--learning-rate``, ``--precision``, ``--loss``.

    Args:
        parser: of a training command.
        rates: the learning rate of each optimiser unless another is asked for; the first one is the default.
    """
    names = tuple(rates)
    usual = ", ".join(f"{rate:g} for {name}" for name, rate in rates.items())
    parser.add_argument("--optimizer", choices=names, default=names[0], help=f"default: {names[0]}")
    parser.add_argument("--learning-rate", type=positive_float, help=f"at its highest (default: {usual})")
    parser.add_argument(
        "--precision", choices=("fp32", "bf16"), default="fp32", help="bf16 is faster only where the hardware has it"
    )
    parser.add_argument(
        "--loss", choices=("psnr", "mse"), default="psnr", help="psnr (default): the logarithm of each image's mse"
    )
    parser.set_defaults(rates=dict(rates))


def schedule_of(arguments: argparse.Namespace) -> Schedule:
    """What the arguments of :func:`add_schedule` ask for."""
    from tools_zoo.training.settings import Schedule

    return Schedule(
        learning_rate=arguments.learning_rate or arguments.rates[arguments.optimizer],
        optimizer=arguments.optimizer,
        precision=arguments.precision,
    )
