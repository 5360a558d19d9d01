"""Explains a restoration in one figure: images, votes of the tiles, and the policy's scores of each action."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from agents.restoration.restorer import Restoration
from agents.restoration.tiled_episode import Vote
from restore_env.images.figures import check_figure, write_figure
from restore_env.toolbox import Toolbox

SHADES = ("Blues", "Oranges", "Greens", "Purples", "RdPu", "YlOrBr")
"""matplotlib's colour maps for the families of tools: those whose names differ in what follows the last ``_`` alone."""
STOP_COLOUR, INK, CHOSEN = "#6b7280", "#1f2937", "#111827"
_WIDTH = 3.1  # of a column, inches
_SHOWN = 900  # pixels along an image's longer side


@dataclass(frozen=True)
class ActionScores:
    """The scores of every action at one step, over all tiles."""

    measure: Literal["probability", "Q value", "share of votes"]
    values: npt.NDArray[np.float64]
    """``(n_actions,)``; for a policy with scores the mean over the tiles; NaN where an action is forbidden."""


def summarize_vote(vote: Vote, kind: Literal["logits", "q"] | None, n_actions: int) -> ActionScores:
    """Summarize a vote.

    Args:
        vote: with or without scores.
        kind: what the scores are, the policy's ``kind``; None if it has none.
        n_actions: tools and ``stop``.

    Returns:
        Mean probabilities for logits, mean Q values for "q"; without scores the share of the tiles that chose it.
    """
    if vote.scores is None or kind is None:
        counts = np.bincount(vote.grid.ravel(), minlength=n_actions)
        return ActionScores("share of votes", counts / vote.grid.size)
    scores = vote.scores.reshape(-1, vote.scores.shape[-1]).astype(np.float64)
    forbidden = np.isneginf(scores).all(axis=0)
    if kind == "logits":
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
    return ActionScores(
        "probability" if kind == "logits" else "Q value", np.where(forbidden, np.nan, scores.mean(axis=0))
    )


def draw_explanation(
    path: str | os.PathLike[str],
    result: Restoration,
    tools: Sequence[str],
    kind: Literal["logits", "q"] | None,
    *,
    title: str = "",
    target: npt.NDArray[np.uint8] | None = None,
) -> None:
    """Write a figure with a column per vote: the image, each tile's choice, and the scores of all actions.

    Args:
        path: PNG, PDF or SVG, by the suffix; the file appears whole or not at all.
        result: with its stages.
        tools: the toolbox's names.
        kind: of the policy's scores.
        title: of the figure.
        target: ground truth, uint8 RGB ``(H, W, 3)``.

    Raises:
        ValueError: another suffix, or a result whose stages were not kept.
    """
    check_figure(path)
    if not result.stages:
        raise ValueError("the restoration has no stages to explain: restore with keep_stages=True")
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    names = (*tools, Toolbox.STOP_NAME)
    colours = action_colours(names)
    more = len(result.stages) > len(result.votes) or target is not None
    columns = len(result.votes) + more
    height, width = result.image.shape[:2]
    tall = float(np.clip(_WIDTH * height / width, 1.4, 4.2))
    heights = (tall, tall, 0.22 * len(names) + 0.5)
    spaced = ConstrainedLayoutEngine(w_pad=0.09, h_pad=0.07)
    figure = Figure(figsize=(_WIDTH * columns + 0.9, sum(heights) + 1.5), layout=spaced)
    figure.suptitle(title, fontsize=12, color=INK, fontweight="bold", parse_math=False)
    axes = figure.subplots(3, columns, squeeze=False, height_ratios=heights)
    captions = _captions(result)
    scores = [summarize_vote(vote, kind, len(names)) for vote in result.votes]
    limits = _limits(scores)
    for step, vote in enumerate(result.votes):
        image, (top, middle, bottom) = result.stages[step].image, axes[:, step]
        _show(top, image, captions[step])
        _show_votes(middle, image, vote, colours)
        counts = np.bincount(vote.grid.ravel(), minlength=len(names))
        _show_scores(bottom, scores[step], counts, names.index(vote.action), names, colours, limits, step == 0)
    if more:
        _show_outcome(axes[:, -1], result, captions[-1], target)
    write_figure(path, figure)


def action_colours(names: Sequence[str]) -> list[Any]:
    """A colour for each action: a hue per family of tools, the darker the later in it; ``stop`` is grey."""
    from matplotlib import colormaps

    families: dict[str, list[str]] = {}
    for name in names:
        families.setdefault(name.rpartition("_")[0] or name, []).append(name)
    families.pop(Toolbox.STOP_NAME, None)
    colours: dict[str, Any] = {Toolbox.STOP_NAME: STOP_COLOUR}
    for number, members in enumerate(families.values()):
        shades = colormaps[SHADES[number % len(SHADES)]](np.linspace(0.38, 0.92, len(members) + 1)[1:])
        colours |= dict(zip(members, shades, strict=True))
    return [colours[name] for name in names]


def _captions(result: Restoration) -> list[str]:
    """The title of each stage."""
    captions = []
    for number, (name, stage) in enumerate(zip(("input", *result.toolchain), result.stages, strict=True)):
        gain = ""
        if stage.psnr is not None:
            gain = f"\n{stage.psnr:.2f} dB"
            before = result.stages[number - 1].psnr if number else None
            gain += f" ({stage.psnr - before:+.2f})" if before is not None else ""
        last = "result, " if number == len(result.stages) - 1 else ""
        captions.append((name if number == 0 else f"{last}after {name}") + gain)
    return captions


def _limits(scores: Sequence[ActionScores]) -> tuple[float, float]:
    """Common axis limits of all steps' bars, with room for labels."""
    values = np.concatenate([each.values for each in scores])
    low, high = min(0.0, float(np.nanmin(values))), max(0.0, float(np.nanmax(values)))
    room = 0.34 * (high - low or 1)
    return low - (room if low < 0 else 0), high + room


def _show(axes: Any, image: npt.NDArray[np.uint8], caption: str) -> None:
    picture = Image.fromarray(image)
    picture.thumbnail((_SHOWN, _SHOWN), Image.Resampling.LANCZOS)
    small = max(image.shape[:2]) < 200
    axes.imshow(np.asarray(picture), interpolation="nearest" if small else "antialiased")
    axes.set_title(caption, fontsize=9.5, color=INK)
    _strip(axes)


def _show_votes(axes: Any, image: npt.NDArray[np.uint8], vote: Vote, colours: Sequence[Any]) -> None:
    from matplotlib.colors import ListedColormap

    height, width = image.shape[:2]
    picture = Image.fromarray(image).convert("L")
    picture.thumbnail((_SHOWN, _SHOWN), Image.Resampling.LANCZOS)
    pale = 140 + np.asarray(picture) * (115 / 255)
    axes.imshow(pale, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0))
    down, across = vote.edges
    axes.pcolormesh(
        across * width,
        down * height,
        vote.grid,
        cmap=ListedColormap(list(colours)),
        vmin=-0.5,
        vmax=len(colours) - 0.5,
        alpha=0.62,
        edgecolors="white",
        linewidth=0.6 if vote.grid.size <= 400 else 0,
    )
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    votes, tiles = vote.counts.get(vote.action, 0), vote.grid.size
    axes.set_title(f"{vote.action}: {votes} of {tiles} {'tile' if tiles == 1 else 'tiles'}", fontsize=9.5, color=INK)
    _strip(axes)


def _show_scores(
    axes: Any,
    scores: ActionScores,
    counts: npt.NDArray[np.int64],
    chosen: int,
    names: Sequence[str],
    colours: Sequence[Any],
    limits: tuple[float, float],
    labelled: bool,
) -> None:
    """Draw a bar for every action with its votes; the chosen one has a frame."""
    values = scores.values
    rows = np.arange(len(names))
    bars = axes.barh(rows, np.nan_to_num(values), color=colours, height=0.74)
    bars[chosen].set(edgecolor=CHOSEN, linewidth=1.6)
    for row, (value, count) in enumerate(zip(values, counts, strict=True)):
        text = (
            "not allowed"
            if np.isnan(value)
            else f"{value:.0%}"
            if scores.measure != "Q value"
            else f"{round(value, 2) + 0.0:.2f}"
        )
        text += (
            f"   {count} {'vote' if count == 1 else 'votes'}" if count and scores.measure != "share of votes" else ""
        )
        axes.annotate(
            text,
            (max(0.0, float(np.nan_to_num(value))), row),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
            color=INK if count or row == chosen else "#9ca3af",
            fontweight="bold" if row == chosen else "normal",
        )
    axes.set_yticks(rows, names if labelled else [""] * len(names), fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(*limits)
    axes.tick_params(length=0, labelsize=7.5, colors=INK)
    axes.spines[:].set_visible(False)
    axes.axvline(0, color="#9ca3af", linewidth=0.9)
    axes.set_xticks([])
    unit = "Q value (mean of the tiles)" if scores.measure == "Q value" else f"mean {scores.measure}"
    axes.set_xlabel(unit if scores.measure != "share of votes" else scores.measure, fontsize=8, color=INK)


def _show_outcome(
    column: npt.NDArray[Any], result: Restoration, caption: str, target: npt.NDArray[np.uint8] | None
) -> None:
    """Draw the last column: the result if no vote followed it, the target, and PSNR by step."""
    pictures = [(result.image, caption)] if len(result.stages) > len(result.votes) else []
    pictures += [] if target is None else [(target, "target")]
    for axes, picture in zip(column, pictures, strict=False):
        _show(axes, *picture)
    for axes in column[len(pictures) : 2]:
        axes.axis("off")
    values = [stage.psnr for stage in result.stages if stage.psnr is not None]
    axes = column[2]
    if not values:
        axes.axis("off")
        return
    axes.plot(range(len(values)), values, "o-", color=INK, markersize=5, linewidth=1.5)
    for step, value in enumerate(values):
        axes.annotate(
            f"{value:.2f}",
            (step, value),
            xytext=(0, 9),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        )
    axes.set_xticks(range(len(values)), ["input", *result.toolchain], fontsize=7.5, rotation=25)
    axes.margins(0.18, 0.25)
    axes.set_yticks([])
    axes.tick_params(colors=INK)
    axes.set_title("PSNR, dB", fontsize=9.5, color=INK)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _strip(axes: Any) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#d1d5db")
