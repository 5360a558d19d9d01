"""Mutated files through everything that reads files: ``python -m benchmarks.soak``.

Every case is a function of its target, the seed and its number, so that ``--only TARGET --first NUMBER --count 1``
repeats it. Each target runs in a process of its own; one that crashes is reported with its case.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agents.command_line import OneLineParser, positive_float, positive_int, run_guarded
from benchmarks.soak.running import FINE, run_cases
from benchmarks.soak.targets import TARGETS

PROGRAM = "benchmarks.soak"
SHOWN = 20
"""Faults of a target that are printed."""


@dataclass
class Tally:
    """What became of a target's cases."""

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    """Number, kind and message of each case that was neither used nor refused as it should be."""


def run(arguments: argparse.Namespace) -> int:
    """Run the targets, print a table, and return 1 if there was any fault."""
    unknown = sorted(set(arguments.only or ()) - set(TARGETS))
    if unknown:
        raise ValueError(f"unknown target {unknown[0]!r}: choose from {', '.join(TARGETS)}")
    if arguments.worker:
        return _work(arguments)
    names = arguments.only or list(TARGETS)
    each = arguments.seconds / sum(TARGETS[name].share for name in names)
    tallies = {}
    for name in names:
        tallies[name] = _in_a_process(name, arguments, each * TARGETS[name].share)
        counts = tallies[name].outcomes
        print(f"{name}: {sum(counts.values())} cases, {_words(counts)}", flush=True)
        for fault in tallies[name].faults[:SHOWN]:
            print(f"  {fault}", flush=True)
    total = sum((tally.outcomes for tally in tallies.values()), Counter[str]())
    faulty = sum(count for outcome, count in total.items() if outcome not in FINE)
    print(f"all: {sum(total.values())} cases, {_words(total)}; faults: {faulty}")
    return 1 if faulty else 0


def _words(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())


def _in_a_process(name: str, arguments: argparse.Namespace, seconds: float) -> Tally:
    """Run a target's cases, starting again behind a case that ends the process."""
    tally, first, began = Tally(), arguments.first, time.monotonic()
    while True:
        words = [sys.executable, "-m", PROGRAM, "--worker", "--only", name, "--seed", str(arguments.seed)]
        left = seconds - (time.monotonic() - began)
        words += ["--first", str(first), "--seconds", str(max(left, 0.1))]
        words += ["--count", str(arguments.count - (first - arguments.first))] if arguments.count else []
        with tempfile.TemporaryFile("w+") as log:
            done = subprocess.run(words, stdout=subprocess.PIPE, stderr=log, text=True, check=False)
            log.seek(0)
            errors = log.read().split("\n")
        lines: list[Any] = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
        number = first
        for number, outcome, message in lines:
            if outcome != "begun":
                tally.outcomes[outcome] += 1
                if outcome not in FINE:
                    tally.faults.append(f"case {number}: {outcome}: {message[:300]}")
        if not done.returncode:
            return tally
        tally.outcomes["crashed"] += 1
        last = next((line for line in reversed(errors) if line.strip()), "")
        tally.faults.append(f"case {number}: crashed with exit code {done.returncode}: {last[:300]}")
        first = number + 1
        if left <= 0 or not lines or (arguments.count and first >= arguments.first + arguments.count):
            return tally


def _work(arguments: argparse.Namespace) -> int:
    (name,) = arguments.only
    with tempfile.TemporaryDirectory() as folder:
        cases = run_cases(
            TARGETS[name], name, Path(folder), arguments.seed, arguments.first, arguments.count, arguments.seconds
        )
        for case in cases:
            print(json.dumps(case), flush=True)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line: exit code 0 if every case was used or refused as it should be, 1 otherwise."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--seconds", type=positive_float, default=1800.0, help="for all targets (default 1800)")
    parser.add_argument("--count", type=positive_int, metavar="N", help="cases of each target at most")
    parser.add_argument("--only", nargs="+", metavar="TARGET", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--seed", type=int, default=0, help="of all cases (default 0)")
    parser.add_argument("--first", type=int, default=0, metavar="NUMBER", help="number of the first case (default 0)")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parsed = parser.parse_args(arguments)
    return run_guarded(lambda: run(parsed), PROGRAM)


if __name__ == "__main__":
    sys.exit(main())
