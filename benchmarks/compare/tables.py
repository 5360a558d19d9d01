"""A comparison as tables, as numbers for machines, and as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agents.rollout import EpisodeResults
from benchmarks.compare.store import Failure, Results
from benchmarks.report.intervals import Estimate, Values, estimate
from benchmarks.report.publishing import markdown_table
from restore_env.images.figures import check_figure, write_figure
from tools_zoo.training.curves import COLOURS

HEADS = {"psnr": ("PSNR, dB", ".2f"), "ssim": ("SSIM", ".4f"), "perceptual": ("perceptual distance", ".4f")}
"""Heading and number format of each metric; lower is better for the perceptual distance alone."""
UNCLAIMED = " *"
"""Marks the difference of a method that is behind but may be undertrained."""
FOOTNOTE = "\\* undertrained, or may be: a win over it is not claimed."
_INK, _GRID = "#1f2937", "#e5e7eb"
_MARKERS = ("o", "s", "^", "D")


@dataclass(frozen=True)
class Line:
    """One method in one severity's table."""

    name: str
    title: str
    estimates: Mapping[str, Estimate]
    """Of each metric, by name."""
    against: Mapping[str, Estimate]
    """Of each metric, the method's minus the reference's on the same images; empty for the reference itself."""
    gmacs: float
    """Executed for an image, the policy's included."""
    milliseconds: float
    """Wall time an image, in this run."""


def metrics_of(played: EpisodeResults) -> dict[str, Values]:
    """All metrics of the results, by name."""
    return {"psnr": played.psnr, **played.scores}


def lines_of(results: Sequence[Results], severity: str, reference: str | None) -> list[Line]:
    """The lines of one severity's table, a method each."""
    baseline = next((one.played[severity] for one in results if one.name == reference), None)
    return [_line(one, one.played[severity], baseline) for one in results]


def _line(result: Results, played: EpisodeResults, reference: EpisodeResults | None) -> Line:
    values = metrics_of(played)
    theirs = {} if reference is None or reference is played else metrics_of(reference)
    return Line(
        name=result.name,
        title=result.title,
        estimates={name: estimate((scores, played.images)) for name, scores in values.items()},
        against={name: estimate((values[name] - theirs[name], played.images)) for name in theirs},
        gmacs=float(played.gmacs.mean()),
        milliseconds=1000 * played.seconds / len(played.psnr),
    )


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
    heads += ["parameters", f"GMAC a {unit}", f"ms a {unit}", "s a megapixel", "peak, MiB", "training"]
    rows = []
    for line, result in zip(lines, results, strict=True):
        cells = [line.title, *(_ranged(line.estimates[name], HEADS[name][1]) for name in metrics)]
        cells += [_compared(line.against["psnr"], result) if line.against else ""] if compared else []
        cost = result.cost
        cells += [
            _parameters(result.parameters),
            f"{line.gmacs:.2f}",
            f"{line.milliseconds:.1f}",
            "" if cost is None else f"{cost.seconds_per_megapixel:.2f}",
            "" if cost is None or cost.peak_mib is None else f"{cost.peak_mib:.0f}",
            result.training,
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
        cells = [one.title + UNCLAIMED * one.undertrained, *(f"{part.psnr.mean():.2f}" for part in played)]
        cells.append(f"{np.mean([part.gmacs.mean() for part in played]):.2f}")
        cells.append(f"{np.mean([1000 * part.seconds / len(part.psnr) for part in played]):.1f}")
        cells.append("" if one.cost is None else f"{one.cost.seconds_per_megapixel:.2f}")
        rows.append(cells)
    return markdown_table(["method", *heads], rows)


def difference_table(results: Sequence[Results], severities: Sequence[str], reference: str) -> list[str]:
    """PSNR of every method minus the reference's on each severity, and the mean of these, as lines of Markdown."""
    baseline = next((one for one in results if one.name == reference), None)
    if baseline is None or len(severities) < 2 or len(results) < 2:
        return []
    heads = [f"method minus {reference}, dB", *severities, "mean"]
    rows = []
    for one in results:
        if one is baseline:
            continue
        parts = [(one.played[name].psnr - baseline.played[name].psnr, one.played[name].images) for name in severities]
        cells = [*(estimate(part) for part in parts), estimate(*parts)]
        rows.append([one.title, *(_compared(cell, one) for cell in cells)])
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
                "name": one.name,
                "title": one.title,
                "parameters": one.parameters,
                "training": one.training,
                "undertrained": one.undertrained,
                "sees_target": one.sees_target,
                "cost": None if one.cost is None else asdict(one.cost),
            }
            for one in results
        ],
        "failures": [asdict(one) for one in failures],
    }


def draw_comparison(path: Path, results: Sequence[Results], severities: Sequence[str], unit: str) -> None:
    """Draw the gain over the input against computation, a panel for each severity.

    Bars are 95 % intervals. Methods that see the target are hollow, those that compute nothing are left out. The file
    appears whole or not at all.

    Raises:
        ValueError: the suffix is none of a figure's.
    """
    check_figure(path)
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(4.6 * len(severities) + 2.2, 4.4), layout="constrained")
    axes = figure.subplots(1, len(severities), squeeze=False)[0]
    for panel, severity in zip(axes, severities, strict=True):
        for number, one in enumerate(results):
            played, colour = one.played[severity], COLOURS[number % len(COLOURS)]
            gain = estimate((played.psnr - played.initial_psnr, played.images))
            if not played.gmacs.any():
                continue
            panel.errorbar(
                played.gmacs.mean(),
                gain.mean,
                [[gain.mean - gain.low], [gain.high - gain.mean]],
                fmt=_MARKERS[number // len(COLOURS) % len(_MARKERS)],
                color=colour,
                markerfacecolor="white" if one.sees_target else colour,
                capsize=2,
                label=one.title,
            )
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_major_formatter("{x:g}")
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.set_title(severity, color=_INK, fontsize=11, fontweight="bold")
        panel.set_xlabel(f"GMAC a {unit}", color=_INK)
        panel.grid(color=_GRID)
        panel.set_axisbelow(True)
        panel.margins(x=0.1, y=0.1)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(colors=_INK, labelsize=9)
    axes[0].set_ylabel("gain over the input, dB", color=_INK)
    handles, labels = axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=9, labelcolor=_INK)
    write_figure(path, figure)


def _ranged(value: Estimate, form: str) -> str:
    return f"{value.mean:{form}} [{value.low:{form}}, {value.high:{form}}]"


def _compared(value: Estimate, method: Results) -> str:
    return _ranged(value, "+.2f") + (UNCLAIMED if method.undertrained and value.mean < 0 else "")


def _parameters(count: int) -> str:
    return f"{np.round(count / 1e3):,.0f} k" if count else "0"
