"""Train a one-network baseline as the tools are trained: ``python -m benchmarks.baselines.train NAME --images DIR``.

The budget is cut into passes, each annealed to its end. What the last doubling of the training added is written into
the weights' recipe and into the card, so that a baseline that is not trained out says so wherever it appears. A run
that was stopped goes on when the command is repeated. A finished one goes on when it is repeated with a pass more and
twice the budget (``--passes 3 --minutes 60`` after ``--passes 2 --minutes 30``): earlier passes are taken from their
checkpoints. ``--init FILE`` goes on from weights alone, best with another ``--out``; a plain network grows from one
that is no larger (vdsr, vdsr_s, dncnn and dncnn_s from one another; gently, as with ``--learning-rate 3e-4``, or it
forgets), a cascade from tools (cascade_hourglass from ``tools_zoo/weights/default/denoise_4.safetensors``, or from a
chain of such).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from agents.command_line import OneLineParser, positive_float, positive_int, run_guarded, severity
from agents.commands.arguments import add_clipped_share, add_common, add_drawing, add_schedule, schedule_of
from agents.commands.training_display import TrainingDisplay, clean_photographs
from benchmarks.baselines.catalog import BASELINES, CLEAN
from benchmarks.baselines.training import PATCH_SIZES, BaselineTraining, PassProgress, train_baseline
from benchmarks.report.publishing import parse
from tools_zoo.training.settings import Budget

PROGRAM = "benchmarks.baselines.train"


def run(arguments: argparse.Namespace) -> int:
    """Train and say how far it came."""
    row = BASELINES[arguments.name]
    settings = BaselineTraining(
        baseline=row,
        out=arguments.out,
        budget=Budget(minutes=None if arguments.steps else arguments.minutes or 30.0, steps=arguments.steps),
        passes=arguments.passes,
        loss=arguments.loss,
        severity=arguments.severity or row.severity,
        saturation_prob=arguments.saturation_prob,
        init=tuple(arguments.init),
        batch_size=arguments.batch_size,
        patch_size=arguments.patch_size or PATCH_SIZES[row.factor],
        seed=arguments.seed,
        device=arguments.device,
        draws=arguments.draws,
        workers=arguments.workers,
        command=arguments.command_line,
        schedule=schedule_of(arguments),
    )
    source = clean_photographs(arguments, settings.patch_size * row.factor)
    with TrainingDisplay() as display:

        def show(now: PassProgress) -> None:
            quality = f"{now.psnr_input:.2f} -> {now.psnr_output:.2f} dB"
            display.show_steps(f"pass {now.number + 1}", now.progress, quality)

        training = train_baseline(settings, source, show)
    print(f"{row.title}: {training}; weights in {settings.path}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("name", choices=tuple(BASELINES))
    add_common(parser)
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=positive_float, help="wall-clock budget of all passes (default 30)")
    budget.add_argument("--steps", type=positive_int, help="steps of all passes, instead of minutes")
    parser.add_argument("--passes", type=positive_int, default=2, help="each doubles the training (default 2)")
    parser.add_argument(
        "--severity",
        type=lambda text: text if text == CLEAN else severity(text),
        help="distortions to train on, as the tools' training takes them: moderate (default), mild, 12,17, ...; or"
        " clean, only small (default for x4 baselines)",
    )
    add_clipped_share(parser)
    parser.add_argument(
        "--init",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="weights to go on from, or to grow from; of a cascade the tools that it begins with, in their order",
    )
    parser.add_argument("--batch-size", type=positive_int, default=16)
    parser.add_argument("--patch-size", type=positive_int, help="of the input (default 48, and 24 for x4 baselines)")
    add_schedule(parser, {"muon": 3e-3, "adam": 1e-3})
    add_drawing(parser)
    parsed = parse(parser, arguments)
    return run_guarded(lambda: run(parsed), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
