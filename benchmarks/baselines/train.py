"""Train a one-network baseline as the tools are trained: ``python -m benchmarks.baselines.train NAME --images DIR``.

A run that was stopped goes on when the command is repeated. ``--init FILE`` goes on from finished weights; the recipe
then says what the additional training gained, so that a baseline that is not trained out is marked in every table.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from agents.command_line import OneLineParser, run_guarded
from benchmarks.baselines.catalog import BASELINES
from benchmarks.baselines.training import BaselineTraining, train_baseline
from benchmarks.report.publishing import parse
from tools_zoo.training.display import TrainingDisplay
from tools_zoo.training.distributed import joined
from tools_zoo.training.runs import photographs
from tools_zoo.training.settings import add_options, from_arguments

PROGRAM = "benchmarks.baselines.train"


def run(arguments: argparse.Namespace) -> int:
    """Train and say how far it came."""
    row = BASELINES[arguments.baseline]
    given = from_arguments(BaselineTraining, arguments, baseline=row.name, command=arguments.command_line)
    with joined(given) as settings:
        source = photographs(settings, settings.patch_size * row.factor)
        with TrainingDisplay() as display:
            training = train_baseline(settings, source, display.show_run)
        print(f"{row.title}: {training}; weights in {settings.path}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("baseline", choices=tuple(BASELINES))
    add_options(parser, BaselineTraining)
    parsed = parse(parser, arguments)
    return run_guarded(lambda: run(parsed), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
