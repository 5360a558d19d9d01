"""Compare toolchains with single networks on the same images: ``python -m benchmarks.compare --images DIR``.

Every method restores the same distorted patches (with ``--photographs`` the same whole photographs): PSNR of
unclipped values; SSIM, or for the x4 task PSNR and SSIM of Y and a perceptual distance (lower is better), of clipped
ones; executed computation, time and memory. Intervals of 95 % are by bootstrap over photographs, differences are
paired. A method that fails is a row with the reason. With ``--cache`` an interrupted comparison continues where it
stopped.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from agents.command_line import OneLineParser, positive_int, run_guarded
from agents.rollout import draw_starts
from benchmarks.baselines.catalog import CLEAN
from benchmarks.compare.distortions import NAMES, distortion_of
from benchmarks.compare.figures import draw_comparison, draw_crops
from benchmarks.compare.methods import (
    METHODS,
    ON_REQUEST,
    Setting,
    add_weights,
    make_method,
    named_weights,
    usual_methods,
)
from benchmarks.compare.metrics import metrics_of
from benchmarks.compare.photographs import COST_SIDE, draw_photographs
from benchmarks.compare.results import Comparison, Failure, Results, make_cache
from benchmarks.compare.tables import (
    FOOTNOTE,
    UNCLAIMED,
    difference_table,
    lines_of,
    record_of,
    severity_table,
    summary_table,
)
from benchmarks.compare.upscaling import MAX_TOOLS
from benchmarks.report.machine import environment
from benchmarks.report.publishing import add_outputs, check_outputs, parse, publish
from restore_env import Task
from restore_env.toolbox import usable_device

PROGRAM = "benchmarks.compare"
TASKS = {"same": (1, "moderate", "default"), "x4": (4, CLEAN, "bicubic")}
"""The tasks: upscale factor, usual severity, and what others are compared with."""
CROPS = 3
"""Photographs in the figure of crops."""


def prepare(arguments: argparse.Namespace, factor: int) -> Comparison:
    """Draw the test sets.

    Raises:
        ValueError: a cache that is no folder, or no images that can be used.
    """
    make_cache(arguments.cache)
    metrics = metrics_of(factor, arguments.squeezenet, arguments.device)
    tasks, starts = {}, {}
    for name in arguments.severity:
        steps = MAX_TOOLS + (factor > 1)  # the super-resolver
        tasks[name] = task = Task(images=arguments.images, upscale=(factor,), max_steps=steps, **distortion_of(name))
        starts[name] = (
            list(draw_photographs(task, factor, arguments.seed))
            if arguments.photographs
            else draw_starts(task, arguments.patches, arguments.seed)
        )
    first = tasks[arguments.severity[0]]
    costly = next(draw_photographs(first, factor, arguments.seed, COST_SIDE))
    return Comparison(tasks, starts, metrics, arguments.photographs, (first, costly), arguments.cache)


def check(arguments: argparse.Namespace) -> None:
    """Check arguments before anything is measured.

    Raises:
        ValueError: in one line.
    """
    usable_device(arguments.device)
    check_outputs(arguments)
    known = METHODS[TASKS[arguments.task][0]]
    named = [*(arguments.methods or []), *filter(None, [arguments.reference])]
    unknown = [name for name in named if name not in known]
    if unknown:
        raise ValueError(f"unknown method {unknown[0]!r} of the task {arguments.task}: choose from {', '.join(known)}")
    if arguments.task == "same" and CLEAN in arguments.severity:
        raise ValueError(f"--severity {CLEAN} leaves nothing to restore; it is for --task x4")
    if arguments.crops and not arguments.photographs:
        raise ValueError("--crops needs --photographs")


def setting_of(arguments: argparse.Namespace) -> Setting:
    """The settings from which methods are made.

    Raises:
        ValueError: a ``--weights`` that is not NAME=FILE, or names nothing that has weights.
    """
    weights = named_weights(arguments.weights)
    others = {name: getattr(arguments, name) for name in vars(Setting()) if name not in ("factor", "weights")}
    return Setting(factor=TASKS[arguments.task][0], weights=weights, **others)


def attempt(name: str, setting: Setting, comparison: Comparison) -> Results | Failure:
    """Make and measure one method; an error is returned and stops no other method."""
    try:
        return comparison.measure(make_method(name, setting))
    except Exception as error:
        reason = " ".join(str(error).split()).replace(f"{Path.cwd()}{os.sep}", "")
        return Failure(name, reason or type(error).__name__)


def run(arguments: argparse.Namespace) -> int:
    """Measure method after method, print and write."""
    factor, severity, reference = TASKS[arguments.task]
    arguments.severity = list(dict.fromkeys(arguments.severity or [severity]))
    check(arguments)
    setting = setting_of(arguments)
    names = dict.fromkeys([*filter(None, [arguments.reference]), *(arguments.methods or usual_methods(setting))])
    arguments.reference = arguments.reference or reference
    comparison = prepare(arguments, factor)
    results: list[Results] = []
    failures: list[Failure] = []
    for number, name in enumerate(names, 1):
        began = time.perf_counter()
        outcome = attempt(name, setting, comparison)
        if isinstance(outcome, Results):
            results.append(outcome)
            text = ", ".join(f"{severity} {played.psnr.mean():.2f} dB" for severity, played in outcome.played.items())
        else:
            failures.append(outcome)
            text = f"failed: {outcome.reason}"
        print(f"[{number}/{len(names)}] {name}: {text}, {time.perf_counter() - began:.0f} s", file=sys.stderr)
    if not results:
        raise ValueError(f"no method gave results; {failures[0].name}: {failures[0].reason}")
    if not any(one.method.name == arguments.reference for one in results):
        print(f"no results of the reference {arguments.reference}: no differences", file=sys.stderr)
        arguments.reference = None
    unit = "photograph" if arguments.photographs else "patch"
    record = {
        "environment": environment(arguments.device),
        **{name: getattr(arguments, name) for name in ("task", "photographs", "seed", "reference")},
        **record_of(results, failures, arguments.severity, arguments.reference),
    }
    publish(arguments, report(arguments, results, failures, unit), record)
    if arguments.figure is not None:
        draw_comparison(arguments.figure, results, arguments.severity, unit)
    if arguments.crops is not None:
        first = arguments.severity[0]
        methods = [one.method for one in results]
        draw_crops(arguments.crops, methods, comparison.tasks[first], comparison.starts[first][:CROPS])
    return 0


def report(arguments: argparse.Namespace, results: Sequence[Results], failures: Sequence[Failure], unit: str) -> str:
    """The tables as Markdown."""
    reference = arguments.reference
    parts = ["\n".join(summary_table(results, arguments.severity, unit))]
    for severity in arguments.severity:
        played = results[0].played[severity]
        photographs = f"{len(set(played.images))} photographs"
        restored = photographs if arguments.photographs else f"{len(played.psnr)} patches of {photographs}"
        lines = lines_of(results, severity, reference)
        table = severity_table(lines, results, failures, reference, unit)
        parts += [f"**{severity}**, {restored}, input {played.initial_psnr.mean():.2f} dB", "\n".join(table)]
    differences = difference_table(results, arguments.severity, reference) if reference else []
    if differences:
        parts.append("\n".join(differences))
    if UNCLAIMED in "".join(parts):
        parts.append(FOOTNOTE)
    return "\n\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--images", type=Path, required=True, help="folder of held-out photographs")
    parser.add_argument("--task", choices=tuple(TASKS), default="same", help="the same size, or x4 (default same)")
    parser.add_argument(
        "--severity",
        nargs="+",
        choices=NAMES,
        help="the protocol's, light (weaker than mild), any (light to severe), single (one distortion alone), saturated"
        " (moderate, a part of the patch white or black), or outside it (default: moderate; clean for x4)",
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        metavar="NAME",
        help=f"default: all whose weights are available, without {', '.join(ON_REQUEST)}",
    )
    parser.add_argument(
        "--reference",
        metavar="NAME",
        help="what others are compared with; joins --methods (default: default, bicubic, if they are among these)",
    )
    parser.add_argument("--patches", type=positive_int, default=500, help="per severity (default 500)")
    parser.add_argument("--photographs", action="store_true", help="restore whole photographs in place of patches")
    parser.add_argument(
        "--toolbox", default="default", help="of the methods agent, random, greedy, exhaustive, fixed: name or folder"
    )
    parser.add_argument("--policy", help="of the method agent: shipped name or file (default: the toolbox's own)")
    parser.add_argument("--published", type=Path, metavar="DIR", help="what imagerestore import-rl-restore wrote")
    parser.add_argument("--owan", type=Path, metavar="FILE", help="OWAN's published weights, model_best.pth")
    add_weights(parser)
    parser.add_argument("--squeezenet", type=Path, help="weights (.npz) for the distance (default: the prior's trunk)")
    parser.add_argument("--search-images", type=Path, help="to search chains on (default: embedded photographs)")
    parser.add_argument("--search-patches", type=positive_int, default=32)
    parser.add_argument("--beam", type=positive_int, default=12, help="chains prolonged per length; 144 searches all")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep what is measured here, and go on from it")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw quality against computation: PNG, PDF or SVG")
    parser.add_argument("--crops", type=Path, metavar="FILE", help=f"draw crops of the first {CROPS} photographs")
    add_outputs(parser)
    parsed = parse(parser, arguments)
    return run_guarded(lambda: run(parsed), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
