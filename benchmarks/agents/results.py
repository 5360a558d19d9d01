"""Results of the benchmark over seeds: as rows of a table, as plain numbers, and as learning curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agents.intervals import Estimate, interquartile_mean
from benchmarks.agents.training import Run
from benchmarks.report.publishing import markdown_table
from tools_zoo.figures import write_figure
from tools_zoo.training.curves import COLOURS

_INK, _GRID = "#1f2937", "#e5e7eb"
_STYLES = ("-", "--", ":")


@dataclass(frozen=True)
class Row:
    """A policy with its runs, one for each seed."""

    title: str
    runs: Sequence[Run]

    def over_seeds(self, value: Callable[[Run], float]) -> Estimate:
        """The interquartile mean of a number over the runs."""
        return interquartile_mean(np.array([value(run) for run in self.runs]))

    def mean(self, value: Callable[[Run], float]) -> float:
        """The mean of a number over the runs."""
        return float(np.mean([value(run) for run in self.runs]))

    @property
    def curve(self) -> tuple[list[int], list[Estimate]]:
        """Environment steps, and the score after them; nothing of a policy that is not trained step by step."""
        steps = [step for step, _ in self.runs[0].curve]
        scores = [[run.curve[point][1] for run in self.runs] for point in range(len(steps))]
        return steps, [interquartile_mean(np.array(values)) for values in scores]


def table(rows: Sequence[Row], unit: str) -> list[str]:
    """The rows as Markdown; intervals of 95 % over seeds in brackets."""
    heads = ["policy", f"return{unit}", "score", "on train", "made worse", "steps", "GMAC", "trained", "s", "steps/s"]
    return markdown_table(heads, [_cells(row) for row in rows])


def _cells(row: Row) -> list[str]:
    seconds, env_steps = row.mean(lambda run: run.seconds), row.mean(lambda run: run.env_steps)
    estimates = [row.over_seeds(value) for value in (lambda run: run.mean, lambda run: run.score)]
    return [
        row.title,
        *(str(one) if len(row.runs) > 1 else f"{one.mean:.3f}" for one in estimates),
        f"{row.over_seeds(lambda run: run.train_score).mean:.3f}",
        f"{row.mean(lambda run: run.worse):.1%}",
        f"{row.mean(lambda run: run.steps):.2f}",
        f"{row.mean(lambda run: run.gmacs):.4f}",
        f"{env_steps:,.0f}" if env_steps else "",
        f"{seconds:.0f}" if seconds else "",
        f"{env_steps / seconds:,.0f}" if env_steps else "",
    ]


def draw_learning_curves(path: Path, rows: Sequence[Row], levels: Mapping[str, float]) -> None:
    """Draw the score on the test set along the training, with bands of 95 % over seeds.

    Args:
        path: PNG, PDF or SVG, by the suffix; the file appears whole or not at all.
        rows: those without a curve are left out.
        levels: scores that are drawn as horizontal lines, by name.

    Raises:
        ValueError: the suffix is none of a figure's.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.6, 4.8), layout="constrained")
    axes = figure.subplots()
    lowest = min([0.0, *levels.values()])
    for number, row in enumerate(row for row in rows if row.runs[0].curve):
        steps, scores = row.curve
        colour, style = COLOURS[number % len(COLOURS)], _STYLES[number // len(COLOURS) % len(_STYLES)]
        axes.plot(steps, [score.mean for score in scores], style, color=colour, linewidth=1.6, label=row.title)
        low, high = ([getattr(score, side) for score in scores] for side in ("low", "high"))
        axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
    for name, score in levels.items():
        axes.axhline(score, color=_INK, linewidth=0.9, linestyle=(0, (1, 2)))
        axes.annotate(name, (1, score), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)
    axes.set(xlabel="environment steps", ylabel="score", axisbelow=True, ylim=(lowest - 0.3, 1.05))
    axes.grid(color=_GRID)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK, labelsize=9)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside right upper", frameon=False, fontsize=9, labelcolor=_INK)
    write_figure(path, figure)
