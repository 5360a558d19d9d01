"""Predicted and real gains of an agent: ``python -m benchmarks.calibration LEVELS``.

An agent of values predicts what each tool gains, with what it would choose next. On a level set what happens is known:
each line has the states whose prediction lies in a range, and what was gained there by the agent's choice.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from agents.agent import RecurrentAgent, load_policy
from agents.command_line import OneLineParser, run_guarded
from agents.imitation.demonstrations import Demonstrations
from agents.imitation.imitation import batch_of, scores_of, with_own_choice
from agents.restoration import CAUTION
from benchmarks.report.publishing import add_outputs, check_outputs, markdown_table, parse, publish
from restore_env.levels.store import open_levels
from tools_zoo.figures import write_figure

PROGRAM = "benchmarks.calibration"
EDGES = (-np.inf, 0.1, 0.3, 0.6, 1.0, 2.0, 4.0, np.inf)
"""Of the ranges of predictions, dB."""
BATCH = 256

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """The states whose highest prediction lies in a range."""

    low: float
    high: float
    states: int
    predicted: float
    """Mean, dB."""
    real: float
    """Mean of what the chosen tool gains, with what the agent chooses next."""
    error: float
    """Mean absolute difference."""


@torch.inference_mode()
def predictions(agent: RecurrentAgent, part: Demonstrations) -> tuple[Values, Values]:
    """Predicted and real values of the tool with the highest prediction, ``(2, levels)``.

    The first row has the states at the start; the second those after the first tool that the agent chooses.

    Returns:
        Predicted and real values.
    """
    predicted, real = [], []
    for first in range(0, len(part), BATCH):
        chosen = np.arange(first, min(first + BATCH, len(part)))
        batch = batch_of(agent, part, chosen)
        scored = scores_of(agent, batch)
        values = with_own_choice(batch, scored).cpu().numpy().astype(np.float64)
        scores = scored[..., :-1].cpu().numpy().astype(np.float64)
        scores = np.where(np.isnan(values), -np.inf, scores)
        rows, tool = np.arange(len(chosen)), scores[:, 0].argmax(axis=1)
        then = scores[rows, 1 + tool].argmax(axis=1)
        predicted.append([scores[rows, 0, tool], scores[rows, 1 + tool, then]])
        real.append([values[rows, 0, tool], values[rows, 1 + tool, then]])
    return np.concatenate(predicted, axis=1), np.concatenate(real, axis=1)


def lines_of(predicted: Values, real: Values) -> list[Line]:
    """A line for each range that has states."""
    lines = []
    for low, high in pairwise(EDGES):
        here = (predicted >= low) & (predicted < high)
        if here.any():
            means = (float(part[here].mean()) for part in (predicted, real, np.abs(predicted - real)))
            lines.append(Line(low, high, int(here.sum()), *means))
    return lines


def table(lines: Sequence[Line]) -> list[str]:
    """The lines as Markdown."""
    heads = ["predicted, dB", "states", "mean prediction", "mean real gain", "mean absolute error"]
    rows = [
        [
            f"{line.low:g} to {line.high:g}".replace("-inf to", "below").replace("to inf", "and more"),
            *(str(line.states), f"{line.predicted:.2f}", f"{line.real:.2f}", f"{line.error:.2f}"),
        ]
        for line in lines
    ]
    return markdown_table(heads, rows)


def draw(path: Path, predicted: Values, real: Values) -> None:
    """Write a figure: each state's real gain over its prediction, and the medians."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    low, high = -2.0, float(np.percentile(predicted, 99.5)) + 1
    axes.plot([low, high], [low, high], color="#9ca3af", linewidth=1)
    axes.scatter(predicted, real, s=3, alpha=0.25, color="#2563eb", linewidths=0)
    edges = np.linspace(0, high, 14)
    inside = [(predicted >= a) & (predicted < b) for a, b in pairwise(edges)]
    medians = [(predicted[here].mean(), np.median(real[here])) for here in inside if here.sum() > 10]
    axes.plot(*zip(*medians, strict=True), "o-", color="#111827", markersize=4, linewidth=1.5)
    axes.set(xlim=(low, high), ylim=(low, high), xlabel="predicted gain, dB", ylabel="real gain, dB", aspect="equal")
    write_figure(path, figure)


def run(arguments: argparse.Namespace) -> int:
    """Measure and publish."""
    check_outputs(arguments)
    levels = open_levels(arguments.levels)
    agent = load_policy(arguments.policy, tools=levels.manifest.tools)
    if agent.kind != "q":
        raise ValueError(f"{arguments.policy}: predicts no gains, but a distribution over actions")
    if levels.tree.depth != 2:
        raise ValueError(f"{arguments.levels}: has depth {levels.tree.depth}; 2 is needed")
    predicted, real = predictions(agent, Demonstrations(levels, np.arange(len(levels))))
    off = np.abs(predicted - real)
    lines, errors, applied = lines_of(predicted.ravel(), real.ravel()), off.mean(axis=1), predicted >= CAUTION
    told = off[applied] if applied.any() else np.array([np.nan])
    if arguments.figure is not None:
        draw(arguments.figure, predicted.ravel(), real.ravel())
    caption = (
        f"{len(levels)} levels; mean absolute error {errors.mean():.3f} dB: {errors[0]:.3f} at the start, of whole"
        f" chains, and {errors[1]:.3f} after one tool. Where a tool is applied, for a prediction of {CAUTION:g} dB or"
        f" more: mean {told.mean():.3f} dB, median {np.median(told):.3f} dB."
    )
    record: dict[str, Any] = {
        "lines": [asdict(line) for line in lines],
        "errors": errors.tolist(),
        "applied": told.mean(),
    }
    publish(arguments, "\n".join([*table(lines), "", caption]), record)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("levels", metavar="LEVELS", help="a level set of depth 2: name or path")
    parser.add_argument("--policy", default="default", help="shipped name or file (default %(default)s)")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="write a figure here: PNG, PDF or SVG")
    add_outputs(parser)
    parsed = parse(parser, arguments)
    return run_guarded(lambda: run(parsed), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
