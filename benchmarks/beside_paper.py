"""A comparison's severities next to the papers': ``python -m benchmarks.beside_paper --comparison FILE``.

FILE is what ``python -m benchmarks.compare --severity mild moderate severe --json FILE`` wrote. The papers measured on
other photographs, so their decibels are not ours: compare how far methods lie apart.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from agents.cli import OneLineParser, run_guarded
from benchmarks.paper import PSNR, RL_RESTORE, TITLES
from benchmarks.publishing import add_outputs, check_outputs, parse, publish
from benchmarks.records import Measured, read_comparison

PROGRAM, SECTION = "benchmarks.beside_paper", "paper"
YARDSTICKS = (RL_RESTORE, "vdsr")
"""From which distances are taken, where they were measured."""
_CAPTION = (
    'PSNR in dB and SSIM of 63x63 patches, means. "paper": PSNR as published (Yu et al., CVPR 2018; OWAN: Suganuma et'
    " al., CVPR 2019), on patches of DIV2K; the other columns are of the photographs of the command that made the"
    " comparison. The test sets differ, so the levels do, too."
)


def severity_table(measured: Measured) -> str:
    """PSNR and SSIM of every method, ours and published, as a Markdown table."""
    severities = list(measured)
    heads = [f"{severity}: PSNR | SSIM | paper" for severity in severities]
    rows = [f"| method | {' | '.join(heads)} |", f"|---|{'---:|' * (3 * len(severities))}"]
    for name, title in _methods(measured).items():
        cells = [title]
        for severity in severities:
            line = measured[severity].get(name)
            means = [("psnr", ".2f"), ("ssim", ".4f")]
            cells += [f"{line['estimates'][metric]['mean']:{form}}" if line else "" for metric, form in means]
            cells.append(f"{PSNR[name][severity]:.2f}" if name in PSNR else "")
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def distance_table(measured: Measured, yardstick: str) -> str:
    """PSNR minus the yardstick's, ours and published, as a Markdown table; empty where it was not measured.

    The mean is that of the severities measured, of the papers' too.
    """
    severities = list(measured)
    if any(yardstick not in named for named in measured.values()):
        return ""
    heads = [f"{severity} | paper" for severity in [*severities, "mean"]]
    rows = [f"| minus {TITLES[yardstick]}, dB | {' | '.join(heads)} |", f"|---|{'---:|' * (2 * len(heads))}"]
    for name, title in _methods(measured).items():
        if name == yardstick:
            continue
        ours = [_psnr(measured[s][name]) - _psnr(measured[s][yardstick]) for s in severities if name in measured[s]]
        theirs = [PSNR[name][s] - PSNR[yardstick][s] for s in severities] if name in PSNR else []
        pairs = zip(_with_mean(ours, len(heads)), _with_mean(theirs, len(heads)), strict=True)
        rows.append(f"| {' | '.join([title, *(cell for pair in pairs for cell in pair)])} |")
    return "\n".join(rows)


def _psnr(line: Mapping[str, Any]) -> float:
    return float(line["estimates"]["psnr"]["mean"])


def _with_mean(distances: Sequence[float], cells: int) -> list[str]:
    """Distances and their mean as cells; as many empty ones where there are none."""
    return [f"{value:+.2f}" for value in [*distances, fmean(distances)]] if distances else [""] * cells


def _methods(measured: Measured) -> dict[str, str]:
    """Titles by name: all that were measured, then the papers' that were not."""
    titles = {name: str(line["title"]) for named in measured.values() for name, line in named.items()}
    return titles | {name: title for name, title in TITLES.items() if name not in titles}


def run(arguments: argparse.Namespace) -> int:
    """Read, print, write."""
    check_outputs(arguments, SECTION)
    comparison = read_comparison(arguments.comparison)
    measured, command = comparison.measured, comparison.command
    distances = [distance_table(measured, yardstick) for yardstick in YARDSTICKS]
    parts = [severity_table(measured), *distances, _CAPTION, f"The comparison:\n\n```\n{command}\n```"]
    record = {"comparison": command, "ours": measured, "published": {name: dict(row) for name, row in PSNR.items()}}
    publish(arguments, SECTION, "\n\n".join(part for part in parts if part), record)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__)
    parser.add_argument(
        "--comparison", type=Path, required=True, metavar="FILE", help="what benchmarks.compare --json wrote"
    )
    add_outputs(parser)
    parsed = parse(parser, arguments)
    return run_guarded(lambda: run(parsed), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
