"""What joint training has made of a toolbox: ``python -m benchmarks.joint --images DIR --before ... --after ...``.

Both toolboxes, each with its agent, play the same patches: the gain by severity and by the level of each distortion.
And every tool is tried on every tool's own pure distortion, before and after, which shows what it has become.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from agents.cli import OneLineParser, run_guarded
from agents.commands.arguments import positive_int
from agents.rollout import Played, draw_starts
from benchmarks.analysis import DISTORTIONS, LEVELS, level_of
from benchmarks.contest import Contender
from benchmarks.publishing import add_outputs, check_outputs, parse, publish
from benchmarks.tools import BATCH_SIZE, PATCH_SIZE, undoes
from restore_env import Task
from restore_env.images.figures import write_figure
from restore_env.images.sources import ImageSource, open_images
from restore_env.metrics import psnr
from restore_env.sampling import EpisodeStart
from restore_env.toolbox import Toolbox
from tools_zoo.catalog import TOOLS
from tools_zoo.training.patches import PatchSampler
from tools_zoo.training.tools import draw_band
from tools_zoo.training.trainer import as_tensor

PROGRAM, SECTION = "benchmarks.joint", "joint"
SIDES = ("before", "after")

Gains = npt.NDArray[np.float64]


@torch.inference_mode()
def pure_gains(toolbox: Toolbox, source: ImageSource, patches: int, seed: int) -> Gains:
    """The mean gain of every tool on every tool's own pure distortion, dB: ``(tools, bands)``."""
    gains = np.zeros((len(toolbox), len(TOOLS)))
    for band, spec in enumerate(TOOLS):
        sampler = PatchSampler(source, range(len(source)), PATCH_SIZE, partial(draw_band, spec))
        pairs = sampler.batch(np.random.default_rng([seed, band]), patches)
        for start in range(0, patches, BATCH_SIZE):
            inputs, targets = (as_tensor(side[start : start + BATCH_SIZE]) for side in pairs)
            before = psnr(inputs, targets)
            for tool in range(len(toolbox)):
                gains[tool, band] += float((psnr(toolbox[tool](inputs), targets) - before).sum()) / patches
    return gains


def level_gains(played: Sequence[Played], starts: Sequence[Sequence[EpisodeStart]]) -> Gains:
    """The mean gain at each level of each distortion over all that was played, dB: ``(3, 10)``; NaN without patches."""
    sums, counts = np.zeros((len(DISTORTIONS), LEVELS)), np.zeros((len(DISTORTIONS), LEVELS))
    for result, drawn in zip(played, starts, strict=True):
        for gain, start in zip(result.psnr - result.initial_psnr, drawn, strict=True):
            for kind, (name, (_, edges)) in enumerate(DISTORTIONS.items()):
                level = level_of(float(start.distortion[name]), edges)
                sums[kind, level] += gain
                counts[kind, level] += 1
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def severity_table(played: dict[str, dict[str, Played]]) -> list[str]:
    """Gains by severity, and their mean, before and after, as lines of Markdown."""
    means = {side: [played[severity][side].gain for severity in played] for side in SIDES}
    lines = [f"| gain, dB | {' | '.join(played)} | mean |", f"|---|{'---:|' * (len(played) + 1)}"]
    for side in SIDES:
        cells = [*means[side], float(np.mean(means[side]))]
        lines.append(f"| {side} | {' | '.join(f'{cell:+.2f}' for cell in cells)} |")
    return lines


def level_table(levels: dict[str, Gains]) -> list[str]:
    """Gains by the level of each distortion, "before -> after", as lines of Markdown."""
    lines = [f"| gain, dB, at level | {' | '.join(str(level + 1) for level in range(LEVELS))} |"]
    lines.append(f"|---|{'---:|' * LEVELS}")
    for kind, (label, _) in enumerate(DISTORTIONS.values()):
        cells = [" -> ".join(f"{levels[side][kind, level]:+.2f}" for side in SIDES) for level in range(LEVELS)]
        lines.append(f"| {label.split(',')[0]} | {' | '.join(cells)} |")
    return lines


def tool_table(names: Sequence[str], pure: dict[str, Gains]) -> list[str]:
    """Each tool's gain on its own pure distortion, and what it is best at now, as lines of Markdown."""
    lines = ["| tool | own distortion | before, dB | after, dB | best at, after |", "|---|---|---:|---:|---|"]
    for row, spec in enumerate(TOOLS):
        before, after = (pure[side][row, row] for side in SIDES)
        best = TOOLS[int(pure["after"][row].argmax())]
        lines.append(f"| {names[row]} | {undoes(spec)} | {before:+.2f} | {after:+.2f} | {undoes(best)} |")
    return lines


def draw_tools(path: Path, names: Sequence[str], pure: dict[str, Gains]) -> None:
    """Draw every tool's gain on every pure distortion, before and after; the file appears whole or not at all."""
    from matplotlib.figure import Figure

    bound = max(3.0, float(max(np.nanmax(gains) for gains in pure.values())))
    figure = Figure(figsize=(15, 6.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for side, panel in zip(SIDES, axes, strict=True):
        shown: Any = panel.imshow(pure[side], cmap="RdBu", vmin=-bound, vmax=bound)
        for row, column in np.ndindex(*pure[side].shape):
            gain = pure[side][row, column]
            ink = "white" if abs(gain) > 0.6 * bound else "#1f2937"
            panel.text(column, row, f"{gain:+.1f}", ha="center", va="center", fontsize=7.5, color=ink)
        panel.set_xticks(range(len(TOOLS)), [undoes(spec) for spec in TOOLS], rotation=60, ha="right", fontsize=8)
        panel.set_yticks(range(len(names)), names, fontsize=8.5)
        panel.set_title(f"{side} joint training", fontweight="bold")
        panel.spines[:].set_visible(False)
        panel.tick_params(length=0)
    figure.colorbar(shown, ax=axes, label="gain, dB", shrink=0.8)
    write_figure(path, figure)


def run(arguments: argparse.Namespace) -> int:
    """Play, measure, print, draw."""
    check_outputs(arguments, SECTION)
    contenders = {side: Contender.load(side, *getattr(arguments, side)) for side in SIDES}
    names = contenders["after"].toolbox.names
    if any(contender.toolbox.names != tuple(spec.name for spec in TOOLS) for contender in contenders.values()):
        raise ValueError("both toolboxes must hold the twelve tools of the table")
    source = open_images(arguments.images, min_size=PATCH_SIZE)
    if not isinstance(source, ImageSource):
        raise ValueError("toolboxes are measured on clean photographs, not on pairs")
    starts, played = {}, {}
    for severity in arguments.severity:
        task = Task(images=arguments.images, severity=severity, toolbox=contenders["after"].toolbox)
        starts[severity] = draw_starts(task, arguments.patches, arguments.seed)
        played[severity] = {side: contenders[side].play(task, starts[severity]) for side in SIDES}
    levels = {
        side: level_gains([played[severity][side] for severity in played], list(starts.values())) for side in SIDES
    }
    pure = {
        side: pure_gains(contenders[side].toolbox, source, arguments.pure_patches, arguments.seed) for side in SIDES
    }
    tables = [severity_table(played), level_table(levels), tool_table(names, pure)]
    record = {
        "gains": {severity: {side: played[severity][side].gain for side in SIDES} for severity in played},
        "levels": {side: levels[side].tolist() for side in SIDES},
        "tools": {side: pure[side].tolist() for side in SIDES},
    }
    publish(arguments, SECTION, "\n\n".join("\n".join(table) for table in tables), record)
    if arguments.figure is not None:
        draw_tools(arguments.figure, names, pure)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--images", type=Path, required=True, help="folder of held-out photographs")
    for side in SIDES:
        parser.add_argument(
            f"--{side}", nargs=2, required=True, metavar=("TOOLBOX", "POLICY"), help="shipped names, folders or files"
        )
    parser.add_argument(
        "--severity", nargs="+", choices=("mild", "moderate", "severe"), default=["mild", "moderate", "severe"]
    )
    parser.add_argument("--patches", type=positive_int, default=500, help="per severity (default 500)")
    parser.add_argument("--pure-patches", type=positive_int, default=100, help="per pure distortion (default 100)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--figure", type=Path, help="draw every tool on every pure distortion: PNG, PDF or SVG")
    add_outputs(parser)
    parsed = parse(parser, arguments)
    return run_guarded(lambda: run(parsed), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
