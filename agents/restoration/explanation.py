"""Explains a restoration in one figure: images, votes of the tiles, and the policy's scores of each action."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from agents.restoration.restorer import Restoration
from agents.restoration.tiled_episode import Vote
from restore_env.episodes.rendering import gain_caption
from restore_env.toolbox import Toolbox
from tools_zoo.figures import check_figure, write_figure

SHADES = ("Blues", "Oranges", "Greens", "Purples", "RdPu", "YlOrBr")
"""matplotlib's colour maps for the families of tools: those whose names differ in what follows the last ``_`` alone."""
STOP_COLOUR, INK, CHOSEN = "#6b7280", "#1f2937", "#111827"
_WIDTH = 3.1  # of a column, inches
_LONGER_SIDE = 900  # of an image in the figure, pixels


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
        return ActionScores("share of votes", np.bincount(vote.grid.ravel(), minlength=n_actions) / vote.grid.size)
    scores = torch.from_numpy(vote.scores).reshape(-1, n_actions).double()
    means = (scores.softmax(dim=1) if kind == "logits" else scores).mean(dim=0)
    values = means.masked_fill(scores.isneginf().any(dim=0), torch.nan).numpy()
    return ActionScores("probability" if kind == "logits" else "Q value", values)


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
    chain = ["input", *(f"after {name}" for name in step_names(result))]
    chain[-1] = f"result, {chain[-1]}" if result.toolchain else chain[-1]
    captions = stage_captions(result, chain)
    scores = [summarize_vote(vote, kind, len(names)) for vote in result.votes]
    values = np.nan_to_num(np.concatenate([one.values for one in scores]))
    low, high = min(0.0, values.min()), max(0.0, values.max())
    room = 0.34 * (high - low or 1)  # for labels
    limits = (low - (room if low < 0 else 0), high + room)
    for step, vote in enumerate(result.votes):
        image, (top, middle, bottom) = result.stages[step].image, axes[:, step]
        _draw_image(top, image, captions[step])
        _draw_votes(middle, image, vote, colours)
        _draw_scores(bottom, vote, scores[step], names, colours)
        bottom.set(xlim=limits, yticks=range(len(names)))
        bottom.set_yticklabels(names if step == 0 else [], fontsize=8)
    if more:
        _draw_outcome(axes[:, -1], result, captions[-1], target)
    write_figure(path, figure)


def vote_picture(image: npt.NDArray[np.uint8], vote: Vote, names: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Each tile's choice as a colour over the image, which is pale and grey.

    Args:
        image: uint8 RGB ``(H, W, 3)``.
        vote: of a step.
        names: of all actions; their colours are those of :func:`action_colours`.

    Returns:
        uint8 RGB, of the image's size, or reduced if it is large.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = _picture(image).size
    figure = Figure(figsize=(width / 128, height / 128), dpi=128)  # exact
    _draw_votes(figure.add_axes((0, 0, 1, 1)), image, vote, action_colours(names))
    canvas: Any = FigureCanvasAgg(figure)  # has no types
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])


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


def step_names(result: Restoration) -> list[str]:
    """The tools of each step: the name of the most common one, and how many others regions had."""
    return [step[0] if len(step) == 1 else f"{step[0]} and {len(step) - 1} more" for step in result.steps]


def stage_captions(result: Restoration, names: Sequence[str]) -> list[str]:
    """A caption for each stage: its name and, if there is a target, its PSNR and gain."""
    values = [stage.psnr for stage in result.stages]
    before = [None, *values[:-1]]
    return [
        name if psnr is None else gain_caption(name, psnr, last)
        for name, psnr, last in zip(names, values, before, strict=True)
    ]


def _picture(image: npt.NDArray[np.uint8]) -> Image.Image:
    """A smaller copy of a large image."""
    picture = Image.fromarray(image)
    picture.thumbnail((_LONGER_SIDE, _LONGER_SIDE), Image.Resampling.LANCZOS)
    return picture


def _draw_image(axes: Any, image: npt.NDArray[np.uint8], caption: str) -> None:
    small = max(image.shape[:2]) < 200
    axes.imshow(np.asarray(_picture(image)), interpolation="nearest" if small else "antialiased")
    axes.set_title(caption, fontsize=9.5, color=INK)
    _style_frame(axes)


def _draw_votes(axes: Any, image: npt.NDArray[np.uint8], vote: Vote, colours: Sequence[Any]) -> None:
    from matplotlib.colors import ListedColormap

    height, width = image.shape[:2]
    pale = 140 + np.asarray(_picture(image).convert("L")) * (115 / 255)
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
    axes.set(xlim=(0, width), ylim=(height, 0))
    votes, tiles = vote.counts.get(vote.action, 0), vote.grid.size
    axes.set_title(f"{vote.action}: {votes} of {tiles} {'tile' if tiles == 1 else 'tiles'}", fontsize=9.5, color=INK)
    _style_frame(axes)


def _draw_scores(axes: Any, vote: Vote, scores: ActionScores, names: Sequence[str], colours: Sequence[Any]) -> None:
    """Draw a bar for every action with its votes; the chosen one has a frame."""
    chosen, share = names.index(vote.action), scores.measure == "share of votes"
    lengths = np.nan_to_num(scores.values)
    bars = axes.barh(range(len(names)), lengths, color=colours, height=0.74)
    bars[chosen].set(edgecolor=CHOSEN, linewidth=1.6)
    for row, (name, value, length) in enumerate(zip(names, scores.values, lengths, strict=True)):
        count = vote.counts.get(name, 0)
        text = f"{round(value, 2) + 0.0:.2f}" if scores.measure == "Q value" else f"{value:.0%}"
        text = "not allowed" if np.isnan(value) else text
        if count and not share:
            text += f"   {count} {'vote' if count == 1 else 'votes'}"
        axes.annotate(
            text,
            (max(0.0, length), row),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
            color=INK if count or row == chosen else "#9ca3af",
            fontweight="bold" if row == chosen else "normal",
        )
    axes.set(ylim=(len(names) - 0.4, -0.6), xticks=[])
    axes.tick_params(length=0, colors=INK)
    axes.spines[:].set_visible(False)
    axes.axvline(0, color="#9ca3af", linewidth=0.9)
    units = {"Q value": "Q value (mean of the tiles)", "probability": "mean probability"}
    axes.set_xlabel(units.get(scores.measure, scores.measure), fontsize=8, color=INK)


def _draw_outcome(
    column: npt.NDArray[Any], result: Restoration, caption: str, target: npt.NDArray[np.uint8] | None
) -> None:
    """Draw the last column: the result if no vote followed it, the target, and PSNR by step."""
    pictures = [(result.image, caption)] if len(result.stages) > len(result.votes) else []
    pictures += [] if target is None else [(target, "target")]
    for axes, picture in zip(column, pictures, strict=False):
        _draw_image(axes, *picture)
    values = [stage.psnr for stage in result.stages if stage.psnr is not None]
    for axes in column[len(pictures) : 2 if values else 3]:
        axes.axis("off")
    if not values:
        return
    axes, steps = column[2], range(len(values))
    axes.plot(steps, values, "o-", color=INK, markersize=5, linewidth=1.5)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    for place in zip(steps, values, strict=True):
        text = {"xytext": (0, 9), "textcoords": "offset points", "ha": "center", "fontsize": 8, "bbox": box}
        axes.annotate(f"{place[1]:.2f}", place, **text)
    axes.set_xticks(steps, ["input", *step_names(result)], fontsize=7.5, rotation=25)
    axes.margins(0.18, 0.25)
    axes.set_yticks([])
    axes.tick_params(colors=INK)
    axes.set_title("PSNR, dB", fontsize=9.5, color=INK)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _style_frame(axes: Any) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color("#d1d5db")
