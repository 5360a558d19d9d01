"""A comparison as figures: gain against computation, and crops of restored photographs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from agents.intervals import estimate
from benchmarks.compare.method import Method
from benchmarks.compare.photographs import play_photographs
from benchmarks.compare.results import Results
from restore_env import Task
from restore_env.images.arrays import Pixels
from restore_env.images.tiling import to_pixels, to_tensor
from restore_env.sampling import EpisodeStart
from restore_env.toolbox import bicubic_upscale
from tools_zoo.figures import write_figure
from tools_zoo.training.curves import COLOURS

CROP = 96
"""Side of the crops, pixels."""
_INK, _GRID = "#1f2937", "#e5e7eb"
_MARKERS = ("o", "s", "^", "D")


def draw_comparison(path: Path, results: Sequence[Results], severities: Sequence[str], unit: str) -> None:
    """Draw the gain over the input against computation, a panel for each severity.

    Bars are 95 % intervals. Methods that see the target are hollow, those that compute nothing are left out. The file
    appears whole or not at all.

    Raises:
        ValueError: the suffix is none of a figure's.
    """
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
                markerfacecolor="white" if one.method.sees_target else colour,
                capsize=2,
                label=one.method.title,
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


def draw_crops(path: Path, methods: Sequence[Method], task: Task, starts: Sequence[EpisodeStart]) -> None:
    """Draw a row for each photograph: its hardest crop as every method restores it, and in the photograph itself."""
    from matplotlib.figure import Figure

    columns = len(methods) + 1
    figure = Figure(figsize=(1.9 * columns, 2.15 * len(starts)), layout="constrained")
    axes = figure.subplots(len(starts), columns, squeeze=False)
    for number, (row, start) in enumerate(zip(axes, starts, strict=True)):
        crop = hardest_crop(start)
        images = [(method.title, restored(method, task, start)) for method in methods]
        for panel, (title, pixels) in zip(row, [*images, ("photograph", start.target)], strict=True):
            panel.imshow(pixels[crop], interpolation="nearest")
            panel.set_axis_off()
            if number == 0:
                panel.set_title(title, fontsize=9)
    write_figure(path, figure)


def restored(method: Method, task: Task, start: EpisodeStart) -> Pixels:
    """The photograph as a method restores it."""
    results: list[Pixels] = []

    def keep(images: Tensor, targets: Tensor) -> Tensor:
        results.append(to_pixels(images))
        return torch.zeros(1)

    play_photographs(method, task, [start], {"keep": keep})
    return results[0]


def hardest_crop(start: EpisodeStart, size: int = CROP) -> tuple[slice, slice]:
    """The square of the target in which the input, upscaled bicubically, has the largest error."""
    before = bicubic_upscale(to_tensor(start.distorted), start.factor)
    error = (to_tensor(start.target) - before).square().mean(1, keepdim=True)
    size = min(size, *error.shape[-2:])
    means = F.avg_pool2d(error, size, stride=4)[0, 0]
    row, column = divmod(int(means.argmax()), means.shape[1])
    return slice(4 * row, 4 * row + size), slice(4 * column, 4 * column + size)
