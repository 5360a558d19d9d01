"""A soak of all that is promised: ``python -m benchmarks.soak``.

First the promises about kills, signals, scarce resources, long runs and equal bits (:mod:`benchmarks.soak.promises`),
then mutated files through everything that reads files. Every case is a function of its row, the seed and its number, so
that ``--only ROW --first NUMBER --count 1`` repeats it. Each row runs in a process of its own; one that crashes is
reported with its case. What a row does not need of its time goes to those after it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from agents.command_line import OneLineParser, positive_float, positive_int, run_guarded
from benchmarks.soak.promises.table import PROMISES, run_promise
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
    """Number, kind and message of each case that did not end as it should."""
    skipped: list[str] = field(default_factory=list)
    """Why cases were left out."""
    done: int = 0
    """What is counted of a promise; of a target, its cases."""
    seconds: float = 0.0


SHARES: Mapping[str, int] = MappingProxyType(
    {name: row.share for name, row in PROMISES.items()} | {name: row.share for name, row in TARGETS.items()}
)
"""The rows and their shares of the time."""


def run(arguments: argparse.Namespace) -> int:
    """Run the rows, print a table, and return 1 if there was any fault."""
    unknown = sorted(set(arguments.only or ()) - set(SHARES))
    if unknown:
        raise ValueError(f"unknown row {unknown[0]!r}: choose from {', '.join(SHARES)}")
    if arguments.worker:
        return _work(arguments)
    with tempfile.TemporaryDirectory() as folder:
        tallies = _all_rows(arguments, folder)
    print(_table(tallies))
    return 1 if any(tally.faults for tally in tallies.values()) else 0


def _all_rows(arguments: argparse.Namespace, folder: str) -> dict[str, Tally]:
    """Run the rows one after the other, each in a folder within this one."""
    names, ends = arguments.only or list(SHARES), time.monotonic() + arguments.seconds
    tallies = {}
    for place, name in enumerate(names):
        left = max(0.1, ends - time.monotonic())
        share = SHARES[name] / sum(SHARES[each] for each in names[place:])
        tally = _in_a_process(name, arguments, folder, left * share)
        tallies[name] = tally
        print(f"{name}: {sum(tally.outcomes.values())} cases, {_words(tally.outcomes)}", flush=True)
        for fault in tally.faults[:SHOWN]:
            print(f"  {fault}", flush=True)
        for reason in dict.fromkeys(tally.skipped):
            print(f"  skipped: {reason}", flush=True)
    return tallies


def _table(tallies: Mapping[str, Tally]) -> str:
    lines = ["", "| promise | done | wanted | faults | s |", "|---|---:|---:|---:|---:|"]
    for name, tally in tallies.items():
        unit, wanted = "files", ""
        if name in PROMISES:
            unit, wanted = PROMISES[name].unit, f"{PROMISES[name].wanted:,}"
        lines.append(f"| {name} | {tally.done:,} {unit} | {wanted} | {len(tally.faults)} | {tally.seconds:.0f} |")
    faults, seconds = sum(len(tally.faults) for tally in tallies.values()), sum(t.seconds for t in tallies.values())
    return "\n".join([*lines, f"| all | | | {faults} | {seconds:.0f} |"])


def _words(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())


def _in_a_process(name: str, arguments: argparse.Namespace, folder: str, seconds: float) -> Tally:
    """Run a target's cases, starting again behind a case that ends the process."""
    tally, first, began = Tally(), arguments.first, time.monotonic()
    while True:
        words = [sys.executable, "-m", PROGRAM, "--worker", folder, "--only", name, "--seed", str(arguments.seed)]
        left = seconds - (time.monotonic() - began)
        words += ["--first", str(first), "--seconds", str(max(left, 0.1))]
        words += ["--count", str(arguments.count - (first - arguments.first))] if arguments.count else []
        words += ["--wanted", str(PROMISES[name].wanted - tally.done)] if name in PROMISES else []
        with tempfile.TemporaryFile("w+") as log:
            done = subprocess.run(words, stdout=subprocess.PIPE, stderr=log, text=True, check=False)
            log.seek(0)
            errors = log.read().split("\n")
        lines: list[Any] = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
        number = first
        for number, outcome, message in lines:
            if outcome != "begun":
                tally.outcomes[outcome] += 1
                tally.done += int(message) if outcome == "kept" else int(name in TARGETS)
                tally.skipped += [message] if outcome == "skipped" else []
                if outcome not in FINE:
                    tally.faults.append(f"case {number}: {outcome}: {message[:300]}")
        tally.seconds = time.monotonic() - began
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
    bounds = {each: getattr(arguments, each) for each in ("seed", "first", "count", "seconds")}
    with tempfile.TemporaryDirectory(dir=arguments.worker) as folder:
        place = Path(folder)
        if name in PROMISES:
            cases = run_promise(name, place, **bounds, wanted=arguments.wanted)
        else:
            cases = run_cases(TARGETS[name], name, place, **bounds)
        for case in cases:
            print(json.dumps(case), flush=True)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line: exit code 0 if every case ended as it should, 1 otherwise."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--seconds", type=positive_float, default=1800.0, help="for all rows (default 1800)")
    parser.add_argument("--count", type=positive_int, metavar="N", help="cases of each row at most")
    parser.add_argument("--only", nargs="+", metavar="ROW", help=f"of {', '.join(SHARES)}")
    parser.add_argument("--seed", type=int, default=0, help="of all cases (default 0)")
    parser.add_argument("--first", type=int, default=0, metavar="NUMBER", help="number of the first case (default 0)")
    parser.add_argument("--wanted", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--worker", metavar="DIR", help=argparse.SUPPRESS)
    parsed = parser.parse_args(arguments)
    return run_guarded(lambda: run(parsed), PROGRAM)


if __name__ == "__main__":
    sys.exit(main())
