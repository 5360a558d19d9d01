"""Plots of learning curves, from TensorBoard logs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import cycle, product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tools_zoo.figures import check_figure, write_figure

Series = tuple[Sequence[float] | npt.NDArray[Any], Sequence[float] | npt.NDArray[Any]]
"""x and y of the points, in the order in which they are joined."""

EVENTS = "*tfevents*"
"""Names of TensorBoard's event files."""
COLOURS = ("#1d4ed8", "#ea580c", "#15803d", "#7e22ce", "#0e7490", "#be123c")
_MARKED = 40  # points up to which each is marked


def draw_curves(path: str | os.PathLike[str], curves: Mapping[str, Series], x_label: str, y_label: str) -> None:
    """Plot curves in one figure, each with its last value at its end.

    Args:
        path: PNG, PDF or SVG, by the suffix; the file appears whole or not at all.
        curves: points by name; those that are not finite are left out, and so are curves without any.
        x_label: of the horizontal axis, with its unit.
        y_label: of the vertical axis, with its unit.

    Raises:
        ValueError: another suffix, a curve whose x and y differ in number, or nothing to draw.
    """
    check_figure(path)
    arrays = {name: np.stack([np.asarray(values, np.float64) for values in curve], 1) for name, curve in curves.items()}
    points = {name: xy[np.isfinite(xy).all(axis=1)] for name, xy in arrays.items()}
    if not any(map(len, points.values())):
        raise ValueError(f"{path}: no point to draw")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 4.4), layout="constrained")
    axes = figure.subplots()
    drawn = [(name, xy) for name, xy in points.items() if len(xy)]
    for (name, xy), (style, colour) in zip(drawn, cycle(product(("-", "--", ":"), COLOURS)), strict=False):
        marker = "o" if len(xy) <= _MARKED else ""
        axes.plot(*xy.T, style, color=colour, linewidth=1.8, marker=marker, markersize=3.5, label=name)
        axes.annotate(
            f"{xy[-1, 1]:.4g}", xy[-1], xytext=(5, 0), textcoords="offset points", va="center", fontsize=8, color=colour
        )
    if len(drawn) > 1:
        axes.legend(frameon=False, fontsize=9)
    axes.set(xlabel=x_label, ylabel=y_label, axisbelow=True)
    axes.grid(color="#e5e7eb")
    axes.margins(x=0.06)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    write_figure(path, figure)


def draw_run(path: str | os.PathLike[str], logs: str | os.PathLike[str], tags: Mapping[str, str], y_label: str) -> None:
    """Draw what a run recorded for TensorBoard, if it recorded any of it.

    Args:
        path: PNG, PDF or SVG, by the suffix.
        logs: what holds the event files.
        tags: the tags that are drawn, and what the picture calls them.
        y_label: of the vertical axis, with its unit.
    """
    if not any(Path(logs).glob(EVENTS)):  # someone has deleted them
        return
    recorded = read_tensorboard(logs)
    curves = {name: recorded[tag] for tag, name in tags.items() if tag in recorded}
    if any(np.isfinite(values).any() for _, values in curves.values()):
        draw_curves(path, curves, "steps", y_label)


def read_tensorboard(folder: str | os.PathLike[str]) -> dict[str, Series]:
    """Read the scalars that a run recorded for TensorBoard: steps and values by tag.

    Args:
        folder: what holds the event files, those of a resumed run too.

    Raises:
        ValueError: there are no event files.
    """
    if not any(Path(folder).glob(EVENTS)):
        raise ValueError(f"{folder}: no TensorBoard event files")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    curves: dict[str, Series] = {}
    for tag in events.Tags()["scalars"]:
        scalars = _without_repeats(events.Scalars(tag))
        curves[tag] = [scalar.step for scalar in scalars], [scalar.value for scalar in scalars]
    return curves


def _without_repeats(scalars: list[Any]) -> list[Any]:
    """Without what a run recorded between its last checkpoint and its end, where it went on from the checkpoint."""
    kept: list[Any] = []
    for scalar in scalars:
        while kept and kept[-1].step >= scalar.step:
            kept.pop()
        kept.append(scalar)
    return kept
