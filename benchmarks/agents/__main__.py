"""Reinforcement learning from scratch, compared: ``python -m benchmarks.agents [TRAIN TEST]``.

Every algorithm is trained on one level set from random weights, without an oracle, with several seeds, and evaluated on
another, which comes from other photographs. Beside them stand policies that need no training, an agent that imitates
an oracle, and the oracles. The score is 0 for the constant chain that is best on the test set, and 1 for the best chain
of each level. A run that is finished is kept as a file, so an interrupted benchmark goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from agents.command_line import OneLineParser, positive_int, run_guarded
from benchmarks.agents.algorithms import ALGORITHMS, PIXELS
from benchmarks.agents.reference import untrained
from benchmarks.agents.results import Row, draw_learning_curves, table
from benchmarks.agents.runs import IMITATION, measure
from benchmarks.agents.training import Run, Setting
from benchmarks.report.machine import environment
from benchmarks.report.publishing import add_outputs, check_outputs, parse, publish
from restore_env.levels.store import LevelSet

PROGRAM = "benchmarks.agents"
LEVELS = "mixed"
"""The packaged level sets that are the default: "mixed-train" and "mixed-test"."""
RUNS = Path("runs/agents")
BEFORE, AFTER = ("random", "best constant chain"), ("greedy oracle", "best chain")
"""Rows of the table before and after those that are trained."""


def chosen(arguments: argparse.Namespace, setting: Setting) -> list[str]:
    """The algorithms to train, in the table's order.

    Raises:
        ValueError: an unknown one, or none that the level set can train.
    """
    known = [*ALGORITHMS, IMITATION]
    unknown = [name for name in arguments.algorithms or () if name not in known]
    if unknown:
        raise ValueError(f"unknown algorithm {unknown[0]!r}: choose from {', '.join(known)}")
    names = [name for name in known if not arguments.algorithms or name in arguments.algorithms]
    need = [name for name in names if name != IMITATION and ALGORITHMS[name].observed is PIXELS]
    if need and not all(levels.manifest.pixels for levels in setting.both):
        print(f"{PROGRAM}: skipped: {', '.join(need)}: the level sets hold no pixels", file=sys.stderr)
        names = [name for name in names if name not in need]
    if not names:
        raise ValueError("nothing to train: the level sets hold no pixels; build them with --pixels")
    return names


def checked(setting: Setting) -> Setting:
    """The setting, if its level sets belong together.

    Raises:
        ValueError: other tools, another depth, or the same photographs.
    """
    train_set, test_set = setting.both
    if list(train_set.manifest.tools) != list(test_set.manifest.tools):
        raise ValueError(f"{setting.train} and {setting.test}: level sets of different tools")
    if train_set.manifest.depth != test_set.manifest.depth:
        raise ValueError(f"{setting.train} and {setting.test}: level sets of different depths")
    if setting.depth < 1:
        raise ValueError(f"{setting.train}: a level set of depth 0 has nothing to choose")
    return setting


def table_rows(setting: Setting, runs: Mapping[str, Sequence[Run]]) -> list[Row]:
    """All rows: those that need no training, those that were trained, and the oracles."""
    trained = [Row(IMITATION if name == IMITATION else ALGORITHMS[name].title, own) for name, own in runs.items()]
    before, after = ([Row(name, untrained(setting, name)) for name in names] for names in (BEFORE, AFTER))
    return [*before, *trained, *after]


def _photographs(levels: LevelSet) -> set[str]:
    """Names of the photographs that a set's levels come from."""
    return {
        Path(levels.manifest.photographs[number]).name for number in np.unique(levels.arrays["photograph"]).tolist()
    }


def run(arguments: argparse.Namespace) -> int:
    """Train and compare everything, and publish the table."""
    check_outputs(arguments)
    if (arguments.train is None) != (arguments.test is None):
        raise ValueError("give two level sets, one to train on and one to evaluate on")
    names = (arguments.train or f"{LEVELS}-train", arguments.test or f"{LEVELS}-test")
    setting = checked(Setting(*names, arguments.steps))
    algorithms = chosen(arguments, setting)
    arguments.runs.mkdir(parents=True, exist_ok=True)
    runs = measure(setting, algorithms, arguments.seeds, arguments.runs, arguments.jobs)
    rows = table_rows(setting, runs)
    facts, manifest = environment(), setting.both[1].manifest
    sets = [(name, levels, _photographs(levels)) for name, levels in zip(names, setting.both, strict=True)]
    described = [f"**{name}**, {len(levels)} levels of {len(own)} photographs" for name, levels, own in sets]
    common = len(sets[0][2] & sets[1][2])
    text = [
        f"Trained on {described[0]}; evaluated on {described[1]}, {common or 'none'} of them trained on."
        f" Severity {manifest.severity}, {len(manifest.tools)} tools, at most {setting.depth} steps.\n",
        *table(rows, ", dB" if manifest.reward == "psnr" else ""),
        f"\nInterquartile means with 95 % intervals; seeds: {arguments.seeds};"
        f" {facts['processor'] or facts['system']}, {arguments.jobs} at once.",
    ]
    record: dict[str, Any] = {row.title: [asdict(one) for one in row.runs] for row in rows}
    publish(arguments, "\n".join(text), {"runs": record, "environment": facts})
    if arguments.figure is not None:
        marked = {row.title: row.over_seeds(lambda one: one.score).mean for row in rows if not row.runs[0].curve}
        draw_learning_curves(arguments.figure, rows, {name: marked[name] for name in marked if name != "random"})
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("train", nargs="?", help=f"level set to train on, a name or a path (default {LEVELS}-train)")
    parser.add_argument("test", nargs="?", help=f"level set to evaluate on (default {LEVELS}-test)")
    parser.add_argument(
        "--algorithms", nargs="+", metavar="NAME", help=f"of {', '.join([*ALGORITHMS, IMITATION])} (default: all)"
    )
    parser.add_argument("--seeds", type=positive_int, default=5, metavar="N", help="trainings of each (default 5)")
    parser.add_argument(
        "--steps", type=positive_int, default=1_000_000, help="environment steps of each training (default 1,000,000)"
    )
    cores = os.cpu_count() or 1
    parser.add_argument("--jobs", type=positive_int, default=cores, help=f"trainings at once (default {cores})")
    parser.add_argument("--runs", type=Path, default=RUNS, metavar="DIR", help=f"finished trainings (default {RUNS})")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw the learning curves here (PNG, PDF, SVG)")
    add_outputs(parser)
    parsed = parse(parser, arguments)
    return run_guarded(lambda: run(parsed), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
