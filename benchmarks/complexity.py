"""What a patch costs, next to what was published: ``python -m benchmarks.complexity``.

Of one network all runs on every patch; of a toolchain what its agent chose, and the agent's looks, so its numbers are
means over patches of the protocol. Networks cost the same whatever their weights: baselines that have none yet are
measured with those that training starts from. Time is the median of rounds in which all take turns on the same patches,
all patches at once, choosing and measuring included.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from agents.cli import OneLineParser, run_guarded
from agents.commands.arguments import positive_int
from agents.rollout import Played, draw_starts
from benchmarks.baselines.counting import parameter_count
from benchmarks.baselines.table import BASELINES, PATCH_PIXELS, Published
from benchmarks.comparison import play_patches
from benchmarks.machine import environment
from benchmarks.methods import METHODS, Method, Setting, untrained
from benchmarks.paper import CHAIN, RL_RESTORE
from benchmarks.publishing import add_outputs, check_outputs, parse, publish
from restore_env import Task
from restore_env.toolbox import usable_device
from tools_zoo import toolbox_names

PROGRAM, SECTION = "benchmarks.complexity", "complexity"
NETWORKS = ("vdsr", "vdsr_s", "dncnn", "dncnn_s", "cascade_hourglass", "owan")
"""The one-network models of the table unless others are asked for."""
YARDSTICK = "vdsr"
"""Whose computation is the unit of a column."""
PUBLISHED = {name: row.published for name, row in BASELINES.items()} | dict.fromkeys((RL_RESTORE, "classic"), CHAIN)
"""What was published of a method's cost; the tools of `classic` have the published shapes."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    title: str
    parameters: int
    """Of all that is loaded."""
    running: float
    """Parameters that a patch goes through, the policy's included; a tool that is taken twice counts twice."""
    gmacs: float
    """10^9 multiply-accumulates executed for a patch, the policy's included."""
    milliseconds: float
    """A patch."""
    published_parameters: float | None
    published_gmacs: float | None


def method_of(name: str, setting: Setting) -> Method:
    """A method of the same-size task; of baselines without weights the start weights do."""
    if name in BASELINES and not (name == "owan" and setting.owan) and not setting.weights_of(name).is_file():
        return untrained(name, setting)
    return METHODS[1][name](setting)


def running_parameters(method: Method, played: Played) -> float:
    """The mean number of parameters that a patch went through."""
    toolbox = method.contender.toolbox
    sizes = [*(parameter_count(tool) for tool in toolbox), 0]  # of stop: none
    chains = [sum(sizes[action] for action in chain) for chain in played.actions]
    return float(np.mean(chains)) + parameter_count(method.contender.policy)


def measure(methods: Sequence[Method], task: Task, patches: int, seed: int, rounds: int) -> list[Row]:
    """Let all methods restore the same patches, in turns.

    Args:
        methods: of the same-size task.
        task: whose patches.
        patches: how many.
        seed: of the patches.
        rounds: how often each has its turn, after one that does not count.
    """
    starts = draw_starts(task, patches, seed)
    seconds: dict[str, list[float]] = {method.name: [] for method in methods}
    played = {}
    for number in range(rounds + 1):
        for method in methods:
            played[method.name] = play_patches(method, task, starts)
            seconds[method.name] += [played[method.name].seconds] if number else []
        print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
    return [_row(method, played[method.name], seconds[method.name]) for method in methods]


def _row(method: Method, played: Played, seconds: Sequence[float]) -> Row:
    known: Published | None = PUBLISHED.get(method.name)
    comparable = known is not None and known.pixels == PATCH_PIXELS
    return Row(
        name=method.name,
        title=method.title,
        parameters=method.parameters,
        running=running_parameters(method, played),
        gmacs=float(played.gmacs.mean()),
        milliseconds=1000 * float(np.median(seconds)) / len(played.psnr),
        published_parameters=known.parameters if known is not None and comparable else None,
        published_gmacs=known.gmacs if known is not None and comparable else None,
    )


def as_table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    unit = next((row.gmacs for row in rows if row.name == YARDSTICK), None)
    heads = ["method", "parameters", "a patch runs through", "GMAC a patch", "ms a patch"]
    heads += [f"of {BASELINES[YARDSTICK].title}'s GMAC"] if unit else []
    heads += ["published: parameters", "published: GMAC a patch"]
    lines = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 1)}"]
    for row in rows:
        cells = [row.title, _thousands(row.parameters), _thousands(row.running)]
        cells += [f"{row.gmacs:.2f}", f"{row.milliseconds:.1f}"]
        cells += [f"{row.gmacs / unit:.0%}"] if unit else []
        cells += [_thousands(row.published_parameters)]
        cells += ["" if row.published_gmacs is None else f"{row.published_gmacs:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _thousands(count: float | None) -> str:
    return "" if count is None else f"{count / 1e3:,.0f} k"


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, write."""
    check_outputs(arguments, SECTION)
    usable_device(arguments.device)
    names = arguments.methods or [*NETWORKS, *toolbox_names(), *([RL_RESTORE] if arguments.published else [])]
    unknown = [name for name in names if name not in METHODS[1]]
    if unknown:
        raise ValueError(f"unknown method {unknown[0]!r}: choose from {', '.join(METHODS[1])}")
    setting = Setting(published=arguments.published, owan=arguments.owan, device=arguments.device, seed=arguments.seed)
    methods = [method_of(name, setting) for name in dict.fromkeys(names)]
    task = Task(images=arguments.images, severity=arguments.severity, upscale=(1,))
    rows = measure(methods, task, arguments.patches, arguments.seed, arguments.rounds)
    threads = torch.get_num_threads()
    text = (
        f"{as_table(rows)}\n\nMeans over {arguments.patches} patches of 63x63 pixels, {arguments.severity}; {threads}"
        f" thread{'s' if threads > 1 else ''}, {arguments.device}. Published: Yu et al., CVPR 2018 (of RL-Restore what"
        " runs for a patch, tools and agent; `classic` has the same shapes), and OWAN's weights."
    )
    record = {"environment": environment(arguments.device), "rows": [asdict(row) for row in rows]}
    publish(arguments, SECTION, text, record)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--images", type=Path, help="folder of photographs (default: the embedded ones)")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="as benchmarks.compare names them")
    parser.add_argument("--severity", choices=("mild", "moderate", "severe"), default="moderate")
    parser.add_argument("--patches", type=positive_int, default=64, help="restored at once (default 64)")
    parser.add_argument("--rounds", type=positive_int, default=5, help="that count (default 5)")
    parser.add_argument("--published", type=Path, metavar="DIR", help="what imagerestore import-rl-restore wrote")
    parser.add_argument("--owan", type=Path, metavar="FILE", help="OWAN's published weights, model_best.pth")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    add_outputs(parser)
    parsed = parse(parser, arguments)
    return run_guarded(lambda: run(parsed), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
