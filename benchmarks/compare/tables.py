"""A comparison as tables, and as plain numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from agents.intervals import Estimate, estimate
from benchmarks.compare.metrics import HEADS
from benchmarks.compare.results import Failure, Results
from benchmarks.report.publishing import markdown_table

UNCLAIMED = " *"
"""Marks the difference of a method that is behind but may be undertrained."""
FACTS = ("name", "title", "parameters", "training", "undertrained", "sees_target")
"""What numbers for machines say of each method."""
FOOTNOTE = "\\* undertrained, or may be: a win over it is not claimed."


@dataclass(frozen=True)
class Line:
    """One method in one severity's table."""

    name: str
    title: str
    estimates: Mapping[str, Estimate]
    """Of each metric, by name."""
    against: Mapping[str, Estimate]
    """Of each metric, the method's minus the reference's on the same images; empty for the reference itself."""
    steps: float
    """Mean length of the chains, ``stop`` included."""
    gmacs: float
    """Executed for an image, the policy's included."""
    milliseconds: float
    """Wall time for an image, in this run."""


def lines_of(results: Sequence[Results], severity: str, reference: str | None) -> list[Line]:
    """The lines of one severity's table, a method each."""
    baseline = next((one.played[severity] for one in results if one.method.name == reference), None)
    lines = []
    for one in results:
        played = one.played[severity]
        values = {"psnr": played.psnr, **played.scores}
        theirs = {} if baseline is None or baseline is played else {"psnr": baseline.psnr, **baseline.scores}
        lines.append(
            Line(
                name=one.method.name,
                title=one.method.title,
                estimates={name: estimate((scores, played.images)) for name, scores in values.items()},
                against={name: estimate((values[name] - theirs[name], played.images)) for name in theirs},
                steps=float(np.mean([len(chain) for chain in played.actions])),
                gmacs=float(played.gmacs.mean()),
                milliseconds=1000 * played.seconds / len(played.psnr),
            )
        )
    return lines


def severity_table(
    lines: Sequence[Line], results: Sequence[Results], failures: Sequence[Failure], reference: str | None, unit: str
) -> list[str]:
    """One severity's table as lines of Markdown; methods that failed say why.

    Args:
        lines: of :func:`lines_of`.
        results: of the same methods, in the same order.
        failures: the methods that gave none.
        reference: name of the method that others are compared with.
        unit: what was restored: "patch" or "photograph".
    """
    metrics = list(lines[0].estimates) if lines else ["psnr"]
    compared = any(line.against for line in lines)
    heads = ["method", *(f"{HEADS[name][0]} (95 %)" for name in metrics)]
    heads += [f"against {reference}, dB (95 %)"] if compared else []
    heads += ["parameters", "steps", f"GMAC a {unit}", f"ms a {unit}", "s a megapixel", "peak, MiB", "training"]
    rows = []
    for line, result in zip(lines, results, strict=True):
        cells = [line.title, *(_ranged(line.estimates[name], HEADS[name][1]) for name in metrics)]
        cells += [_compared(line.against["psnr"], result) if line.against else ""] if compared else []
        cost = result.cost
        cells += [
            _parameters(result.method.parameters),
            f"{line.steps:.2f}",
            f"{line.gmacs:.2f}",
            f"{line.milliseconds:.1f}",
            "" if cost is None else f"{cost.seconds_per_megapixel:.2f}",
            "" if cost is None or cost.peak_mib is None else f"{cost.peak_mib:.0f}",
            result.method.training,
        ]
        rows.append(cells)
    rows += [[one.name, *[""] * (len(heads) - 2), f"failed: {one.reason}"] for one in failures]
    return markdown_table(heads, rows)


def summary_table(results: Sequence[Results], severities: Sequence[str], unit: str) -> list[str]:
    """PSNR of every method on each severity and its mean cost, as lines of Markdown.

    Args:
        results: a row each.
        severities: a column each.
        unit: what was restored: "patch" or "photograph".
    """
    heads = [*(f"{name}, dB" for name in severities), f"GMAC a {unit}", f"ms a {unit}", "s a megapixel"]
    rows = []
    for one in results:
        played = [one.played[name] for name in severities]
        cells = [
            one.method.title + UNCLAIMED * one.method.undertrained,
            *(f"{part.psnr.mean():.2f}" for part in played),
        ]
        cells.append(f"{np.mean([part.gmacs.mean() for part in played]):.2f}")
        cells.append(f"{np.mean([1000 * part.seconds / len(part.psnr) for part in played]):.1f}")
        cells.append("" if one.cost is None else f"{one.cost.seconds_per_megapixel:.2f}")
        rows.append(cells)
    return markdown_table(["method", *heads], rows)


def difference_table(results: Sequence[Results], severities: Sequence[str], reference: str) -> list[str]:
    """PSNR of every method minus the reference's on each severity, and the mean of these, as lines of Markdown."""
    baseline = next((one for one in results if one.method.name == reference), None)
    if baseline is None or len(severities) < 2 or len(results) < 2:
        return []
    heads = [f"method minus {reference}, dB", *severities, "mean"]
    rows = []
    for one in results:
        if one is baseline:
            continue
        parts = [(one.played[name].psnr - baseline.played[name].psnr, one.played[name].images) for name in severities]
        cells = [*(estimate(part) for part in parts), estimate(*parts)]
        rows.append([one.method.title, *(_compared(cell, one) for cell in cells)])
    return markdown_table(heads, rows)


def record_of(
    results: Sequence[Results], failures: Sequence[Failure], severities: Sequence[str], reference: str | None
) -> dict[str, Any]:
    """All numbers, as plain values for JSON."""
    return {
        "severities": {
            severity: [asdict(line) for line in lines_of(results, severity, reference)] for severity in severities
        },
        "methods": [
            {
                **{name: getattr(one.method, name) for name in FACTS},
                "cost": None if one.cost is None else asdict(one.cost),
            }
            for one in results
        ],
        "failures": [asdict(one) for one in failures],
    }


def _ranged(value: Estimate, form: str) -> str:
    return f"{value.mean:{form}} [{value.low:{form}}, {value.high:{form}}]"


def _compared(value: Estimate, result: Results) -> str:
    return _ranged(value, "+.2f") + (UNCLAIMED if result.method.undertrained and value.mean < 0 else "")


def _parameters(count: int) -> str:
    return f"{np.round(count / 1e3):,.0f} k" if count else "0"
