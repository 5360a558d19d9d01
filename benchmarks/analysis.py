"""What a policy does when, by the true distortion: ``python -m benchmarks.analysis --images DIR``.

A figure with a heat map for each step and distortion, whose columns are the ten levels of the protocol and whose rows
are the actions. A cell is the share of the patches of that level, of those still in play, for which the policy chose
that action at that step. The policy does not see the levels.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agents.agent import policy_of
from agents.cli import OneLineParser, run_guarded
from agents.commands.arguments import positive_int
from agents.policies.oracles import ExhaustiveOracle, GreedyOracle
from agents.restoration.explanation import action_colours
from agents.rollout import draw_starts
from benchmarks.contest import Contender
from restore_env import Task
from restore_env.distortions.protocol import BLUR_EDGES, JPEG_EDGES, NOISE_EDGES
from restore_env.images.encoding import write_atomically
from restore_env.images.figures import check_figure, write_figure
from restore_env.sampling import EpisodeStart
from restore_env.toolbox import Toolbox

PROGRAM = "benchmarks.analysis"
DISTORTIONS = {
    "blur_sigma": ("blur, sigma in px", BLUR_EDGES),
    "noise_sigma": ("noise, sigma of 255", NOISE_EDGES),
    "jpeg_quality": ("JPEG, quality", JPEG_EDGES),
}
"""The names that an episode's start gives them, what axes call them, and the edges of their levels."""
LEVELS = 10
ORACLES = {"greedy": GreedyOracle, "exhaustive": ExhaustiveOracle}
_INK = "#1f2937"
_EMPTY = 0.965
_LUMA = np.array([0.299, 0.587, 0.114])  # Rec. 601: how bright a colour looks
_WRITTEN = 0.15  # share from which on a cell says its number

Counts = npt.NDArray[np.int64]


def level_of(value: float, edges: Sequence[float]) -> int:
    """The level, 0..9, of a distortion's strength; ``edges`` may fall, as those of JPEG do."""
    return int(np.clip(np.digitize(value, edges) - 1, 0, len(edges) - 2))


def count_choices(
    chains: Sequence[Sequence[int]], starts: Sequence[EpisodeStart], n_actions: int, steps: int
) -> Counts:
    """How often each action was chosen at each step, by the level of each distortion.

    Args:
        chains: the actions of each episode, ``stop`` included.
        starts: what the episodes started from, with the true levels.
        n_actions: tools and ``stop``.
        steps: the longest chain.

    Returns:
        ``(steps, 3, 10, n_actions)``; the second axis as in :data:`DISTORTIONS`.
    """
    counts = np.zeros((steps, len(DISTORTIONS), LEVELS, n_actions), dtype=np.int64)
    for chain, start in zip(chains, starts, strict=True):
        for kind, (name, (_, edges)) in enumerate(DISTORTIONS.items()):
            level = level_of(float(start.distortion[name]), edges)
            for step, action in enumerate(chain):
                counts[step, kind, level, action] += 1
    return counts


def draw_choices(path: Path, counts: Counts, names: Sequence[str], title: str) -> None:
    """Draw the heat maps of :func:`count_choices`; the file appears whole or not at all.

    Args:
        path: PNG, PDF or SVG, by the suffix.
        counts: ``(steps, 3, 10, n_actions)``.
        names: of the actions.
        title: of the figure.

    Raises:
        ValueError: another suffix.
    """
    check_figure(path)
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    steps = len(counts)
    hues = np.array([to_rgb(colour) for colour in action_colours(names)])
    figure = Figure(
        figsize=(15.5, 0.7 + steps * (0.24 * len(names) + 1.1)), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06)
    )
    figure.suptitle(title, fontsize=13, color=_INK, fontweight="bold", parse_math=False)
    axes = figure.subplots(steps, len(DISTORTIONS), squeeze=False, sharey=True)
    for step in range(steps):
        for kind, (label, edges) in enumerate(DISTORTIONS.values()):
            _draw_map(axes[step, kind], counts[step, kind].T, hues, label, edges)
        played = int(counts[step, 0].sum())
        axes[step, 0].set_yticks(range(len(names)), names, fontsize=8.5)
        axes[step, 0].set_ylabel(f"step {step + 1}\n{played} patches", fontsize=11, color=_INK)
    write_figure(path, figure)


def _draw_map(axes: Any, counts: Counts, hues: npt.NDArray[np.float64], label: str, edges: Sequence[float]) -> None:
    """One heat map, ``(n_actions, levels)``: an action's hue, the fuller the more often it is chosen at a level."""
    totals = counts.sum(axis=0)
    shares = counts / np.maximum(totals, 1)
    strength = shares[:, :, None] ** 0.75
    cells = _EMPTY - strength * (_EMPTY - hues[:, None])
    cells[:, totals == 0] = 1  # no patches
    axes.imshow(cells, aspect="auto", interpolation="nearest")
    for row, column in np.argwhere(shares >= _WRITTEN):
        dark = cells[row, column] @ _LUMA < 0.55
        axes.text(
            column,
            row,
            f"{shares[row, column]:.0%}",
            ha="center",
            va="center",
            fontsize=7.5,
            color="white" if dark else _INK,
        )
    axes.set_xticks(np.arange(len(edges)) - 0.5, [f"{edge:g}" for edge in edges], fontsize=8)
    axes.set_xlabel(label, fontsize=9, color=_INK)
    axes.set_xticks(np.arange(len(edges)) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(counts) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="both", length=0, colors=_INK)
    axes.spines[:].set_visible(False)


def run(arguments: argparse.Namespace) -> int:
    """Play, count, draw."""
    check_figure(arguments.out)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    if arguments.json is not None and not arguments.json.parent.is_dir():
        raise ValueError(f"{arguments.json.parent}: no such folder")
    pipeline = Contender.load("agent", arguments.toolbox, arguments.policy)
    name = arguments.policy
    if arguments.oracle:
        pipeline = Contender("oracle", ORACLES[arguments.oracle](), pipeline.toolbox)
        name = f"{arguments.oracle} oracle"
    names = (*pipeline.toolbox.names, Toolbox.STOP_NAME)
    task = Task(images=arguments.images, severity=arguments.severity, toolbox=pipeline.toolbox)
    starts = draw_starts(task, arguments.patches, arguments.seed)
    played = pipeline.play(task, starts)
    counts = count_choices(played.actions, starts, len(names), task.max_steps)
    title = f"{name}, {arguments.severity}: {played.gain:+.2f} dB on {len(starts)} patches"
    draw_choices(arguments.out, counts, names, title)
    if arguments.json:
        record = {
            "policy": name,
            "toolbox": arguments.toolbox,
            "severity": arguments.severity,
            "patches": len(starts),
            "seed": arguments.seed,
            "gain_db": played.gain,
            "actions": names,
            "edges": {kind: edges for kind, (_, edges) in DISTORTIONS.items()},
            "counts": [
                {kind: counts[step, index].tolist() for index, kind in enumerate(DISTORTIONS)}
                for step in range(len(counts))
            ],
        }
        write_atomically(arguments.json, json.dumps(record).encode())
    for step in range(len(counts)):
        totals = counts[step, 0].sum(axis=0)
        common = [index for index in np.argsort(-totals, kind="stable")[:4] if totals[index]]
        shares = ", ".join(f"{names[index]} {totals[index] / totals.sum():.0%}" for index in common)
        print(f"step {step + 1}, {totals.sum()} patches: {shares or 'none'}")
    print(f"{title}; figure in {arguments.out}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--images", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--toolbox", default="default", help="shipped name or folder")
    parser.add_argument("--policy", help="shipped name or file (default: the toolbox's own)")
    parser.add_argument("--oracle", choices=tuple(ORACLES), help="look at an oracle with these tools instead")
    parser.add_argument("--severity", choices=("mild", "moderate", "severe"), default="moderate")
    parser.add_argument("--patches", type=positive_int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("choices.png"), metavar="FIGURE", help="PNG, PDF or SVG")
    parser.add_argument("--json", type=Path, help="write the counts here, too")
    parsed = parser.parse_args(arguments)
    parsed.policy = parsed.policy or str(policy_of(parsed.toolbox))
    return run_guarded(lambda: run(parsed), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
