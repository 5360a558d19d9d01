"""A comparison in one table, as the README has it: ``python -m benchmarks.summary --comparison FILE``.

FILE is what ``python -m benchmarks.compare --severity mild moderate severe --json FILE`` wrote.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from agents.cli import OneLineParser, run_guarded
from benchmarks.publishing import add_outputs, check_outputs, parse, publish
from benchmarks.records import RecordedComparison, read_comparison
from benchmarks.report import FOOTNOTE, UNCLAIMED

PROGRAM, SECTION = "benchmarks.summary", "summary"


def rows_of(comparison: RecordedComparison, methods: Sequence[str]) -> list[dict[str, Any]]:
    """PSNR of each method on each severity, and what a patch costs on the mean of them.

    Args:
        comparison: all that was measured.
        methods: the rows, in this order.

    Raises:
        ValueError: a method that was not measured.
    """
    unknown = [name for name in methods if name not in comparison.methods]
    if unknown:
        raise ValueError(f"{unknown[0]!r} was not compared: choose from {', '.join(comparison.methods)}")
    rows = []
    for name in methods:
        method, lines = comparison.methods[name], [named[name] for named in comparison.measured.values()]
        psnr = [line["estimates"]["psnr"]["mean"] for line in lines]
        rows.append(
            {
                "title": method["title"],
                "undertrained": method["undertrained"],
                "psnr": dict(zip(comparison.measured, psnr, strict=True)),
                "gmacs": fmean(line["gmacs"] for line in lines),
                "milliseconds": fmean(line["milliseconds"] for line in lines),
                "seconds_per_megapixel": method["cost"]["seconds_per_megapixel"] if method["cost"] else None,
            }
        )
    return rows


def summary_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a Markdown table, with a note below if a method is undertrained."""
    severities = list(rows[0]["psnr"])
    heads = [*(f"{severity}, dB" for severity in severities), "GMAC a patch", "ms a patch", "s a megapixel"]
    lines = [f"| | {' | '.join(heads)} |", f"|---|{'---:|' * len(heads)}"]
    for row in rows:
        seconds = row["seconds_per_megapixel"]
        cells = [f"{row['title']}{UNCLAIMED * bool(row['undertrained'])}"]
        cells += [f"{row['psnr'][severity]:.2f}" for severity in severities]
        cells += [f"{row['gmacs']:.2f}", f"{row['milliseconds']:.1f}", "" if seconds is None else f"{seconds:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    noted = any(row["undertrained"] for row in rows)
    return "\n".join(lines) + f"\n\n{FOOTNOTE}" * noted


def run(arguments: argparse.Namespace) -> int:
    """Read, print, write."""
    check_outputs(arguments, SECTION)
    comparison = read_comparison(arguments.comparison)
    rows = rows_of(comparison, arguments.methods or tuple(comparison.methods))
    told = f"{summary_table(rows)}\n\n```\n{comparison.command}\n```"
    publish(arguments, SECTION, told, {"comparison": comparison.command, "rows": rows})
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
