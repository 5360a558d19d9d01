"""A comparison in one table, as the README has it: ``python -m benchmarks.summary --comparison FILE``.

FILE is what ``python -m benchmarks.compare --severity mild moderate severe --json FILE`` wrote.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from agents.cli import OneLineParser, run_guarded
from benchmarks.publishing import add_outputs, check_outputs, parse, publish
from benchmarks.records import Comparison, read_comparison
from benchmarks.report import FOOTNOTE, UNCLAIMED

PROGRAM, SECTION = "benchmarks.summary", "summary"
COSTS = (("gmacs", ".2f"), ("milliseconds", ".1f"))
"""What an image costs, and how it is written."""


def summary_table(comparison: Comparison, methods: Sequence[str]) -> str:
    """PSNR on each severity, and what a patch costs on the mean of them, as a Markdown table.

    Args:
        comparison: all that was measured.
        methods: the rows, in this order.

    Raises:
        ValueError: a method that was not measured.
    """
    unknown = [name for name in methods if name not in comparison.methods]
    if unknown:
        raise ValueError(f"{unknown[0]!r} was not compared: choose from {', '.join(comparison.methods)}")
    heads = [*(f"{severity}, dB" for severity in comparison.measured), "GMAC a patch", "ms a patch", "s a megapixel"]
    rows = [f"| | {' | '.join(heads)} |", f"|---|{'---:|' * len(heads)}"]
    for name in methods:
        lines, method = [named[name] for named in comparison.measured.values()], comparison.methods[name]
        cells = [f"{method['title']}{UNCLAIMED * bool(method['undertrained'])}"]
        cells += [f"{line['estimates']['psnr']['mean']:.2f}" for line in lines]
        cells += [f"{fmean(line[cost] for line in lines):{form}}" for cost, form in COSTS]
        cells.append(f"{method['cost']['seconds_per_megapixel']:.2f}" if method["cost"] else "")
        rows.append(f"| {' | '.join(cells)} |")
    noted = any(comparison.methods[name]["undertrained"] for name in methods)
    return "\n".join(rows) + f"\n\n{FOOTNOTE}" * noted


def run(arguments: argparse.Namespace) -> int:
    """Read, print, write."""
    check_outputs(arguments, SECTION)
    comparison = read_comparison(arguments.comparison)
    table = summary_table(comparison, arguments.methods or tuple(comparison.methods))
    publish(arguments, SECTION, table, {"comparison": comparison.command})
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__)
    parser.add_argument(
        "--comparison", type=Path, required=True, metavar="FILE", help="what benchmarks.compare --json wrote"
    )
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="the rows (default: all that were compared)")
    add_outputs(parser)
    parsed = parse(parser, arguments)
    return run_guarded(lambda: run(parsed), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
