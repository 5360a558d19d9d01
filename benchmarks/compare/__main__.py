"""Compare toolchains with single networks on the same images: ``python -m benchmarks.compare --images DIR``.

Every method restores the same distorted patches (with ``--photographs`` the same whole photographs): PSNR of
unclipped values; SSIM and, for the x4 task, a perceptual distance (lower is better) of clipped ones; executed
computation, time and memory. :mod:`benchmarks.compare.distortions` says what was trained on which severity. Intervals
of 95 % are by bootstrap over photographs, differences are paired. A method that fails is a row with the reason. With
``--cache`` an interrupted comparison continues where it stopped.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from agents.command_line import OneLineParser, positive_int, run_guarded
from agents.rollout import draw_starts
from benchmarks.baselines.catalog import CLEAN, find_baseline
from benchmarks.compare.comparison import Comparison, attempt, metrics_of
from benchmarks.compare.distortions import NAMES, distortion_of
from benchmarks.compare.methods import METHODS, Setting, usual_methods
from benchmarks.compare.photographs import COST_SIDE, draw_photographs
from benchmarks.compare.store import Failure, Results, ResultStore
from benchmarks.compare.tables import (
    FOOTNOTE,
    UNCLAIMED,
    difference_table,
    draw_comparison,
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

PROGRAM, SECTION = "benchmarks.compare", "comparison"
TASKS = {"same": 1, "x4": 4}
"""The tasks and their upscale factors."""
USUAL = {1: ("moderate",), 4: ("clean",)}
"""The severities of a task unless others are asked for."""
REFERENCES = {1: "default", 4: "bicubic"}


def prepare(arguments: argparse.Namespace) -> Comparison:
    """Draw the test sets.

    Raises:
        ValueError: a cache that is no folder, or no images that can be used.
    """
    store = ResultStore(arguments.cache)
    factor = TASKS[arguments.task]
    tasks = {
        name: Task(
            images=arguments.images,
            upscale=(factor,),
            max_steps=MAX_TOOLS + (factor > 1),  # the super-resolver
            **distortion_of(name),
        )
        for name in arguments.severity
    }
    draw = (
        partial(draw_photographs, factor=factor, seed=arguments.seed)
        if arguments.photographs
        else partial(draw_starts, count=arguments.patches, seed=arguments.seed)
    )
    first = tasks[arguments.severity[0]]
    metrics, missing = metrics_of(factor)
    if missing:
        print(missing, file=sys.stderr)
    return Comparison(
        tasks,
        {name: draw(task) for name, task in tasks.items()},
        metrics,
        photographs=arguments.photographs,
        costly=(first, draw_photographs(first, factor, arguments.seed, COST_SIDE)[0]),
        store=store,
    )


def check(arguments: argparse.Namespace) -> None:
    """Check arguments before anything is measured.

    Raises:
        ValueError: in one line.
    """
    usable_device(arguments.device)
    check_outputs(arguments, arguments.section)
    known = METHODS[TASKS[arguments.task]]
    named = [*(arguments.methods or []), *filter(None, [arguments.reference])]
    unknown = [name for name in named if name not in known]
    if unknown:
        raise ValueError(f"unknown method {unknown[0]!r} of the task {arguments.task}: choose from {', '.join(known)}")
    if arguments.task == "same" and CLEAN in arguments.severity:
        raise ValueError(f"--severity {CLEAN} leaves nothing to restore; it is for --task x4")


def setting_of(arguments: argparse.Namespace) -> Setting:
    """The settings from which methods are made.

    Raises:
        ValueError: a ``--weights`` that is not NAME=FILE, or names no baseline.
    """
    weights = {}
    for text in arguments.weights:
        name, separator, path = text.partition("=")
        if not (separator and path):
            raise ValueError(f"--weights takes NAME=FILE, got {text!r}")
        weights[find_baseline(name).name] = Path(path)
    names = ("toolbox", "published", "owan", "peers", "search_images", "search_patches", "beam", "device", "seed")
    return Setting(factor=TASKS[arguments.task], weights=weights, **{name: getattr(arguments, name) for name in names})


def run(arguments: argparse.Namespace) -> int:
    """Measure method after method, print and write."""
    check(arguments)
    setting = setting_of(arguments)
    names = list(dict.fromkeys(arguments.methods or usual_methods(setting)))
    if arguments.reference is not None and arguments.reference not in names:
        names = [arguments.reference, *names]
    arguments.reference = arguments.reference or REFERENCES[TASKS[arguments.task]]
    comparison = prepare(arguments)
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
    if not any(one.name == arguments.reference for one in results):
        print(f"no results of the reference {arguments.reference}: no differences", file=sys.stderr)
        arguments.reference = None
    if not results:
        raise ValueError(f"no method gave results; {failures[0].name}: {failures[0].reason}")
    record = {
        "environment": environment(arguments.device),
        **{name: getattr(arguments, name) for name in ("task", "photographs", "seed", "reference")},
        **record_of(results, failures, arguments.severity, arguments.reference),
    }
    publish(arguments, arguments.section, report(arguments, results, failures), record)
    if arguments.figure is not None:
        draw_comparison(arguments.figure, results, arguments.severity, unit_of(arguments))
    return 0


def unit_of(arguments: argparse.Namespace) -> str:
    """The unit of the tables: a patch or a whole photograph."""
    return "photograph" if arguments.photographs else "patch"


def report(arguments: argparse.Namespace, results: Sequence[Results], failures: Sequence[Failure]) -> str:
    """The tables as Markdown."""
    reference, unit = arguments.reference, unit_of(arguments)
    parts = ["\n".join(summary_table(results, arguments.severity, unit))]
    for severity in arguments.severity:
        played = results[0].played[severity]
        photographs = f"{len(set(played.images))} photographs"
        restored = photographs if unit == "photograph" else f"{len(played.psnr)} patches of {photographs}"
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
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="default: all whose weights are available")
    parser.add_argument(
        "--reference",
        metavar="NAME",
        help="what others are compared with; joins --methods (default: default, bicubic, if they are among these)",
    )
    parser.add_argument("--patches", type=positive_int, default=500, help="per severity (default 500)")
    parser.add_argument("--photographs", action="store_true", help="restore whole photographs in place of patches")
    parser.add_argument("--toolbox", default="default", help="of the greedy oracle and the fixed chain: name or folder")
    parser.add_argument("--published", type=Path, metavar="DIR", help="what imagerestore import-rl-restore wrote")
    parser.add_argument("--owan", type=Path, metavar="FILE", help="OWAN's published weights, model_best.pth")
    parser.add_argument("--peers", type=Path, metavar="DIR", help="published weights of RFDN and CARN-M, for x4")
    parser.add_argument(
        "--weights",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=FILE",
        help="of baselines (default: shipped ones)",
    )
    parser.add_argument("--search-images", type=Path, help="to search fixed chains on (default: embedded photographs)")
    parser.add_argument("--search-patches", type=positive_int, default=32)
    parser.add_argument("--beam", type=positive_int, default=12, help="chains prolonged per length; 144 searches all")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep what is measured here, and go on from it")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw quality against computation: PNG, PDF or SVG")
    add_outputs(parser)
    parser.add_argument("--section", default=SECTION, help=f"of the card (default: {SECTION})")
    parsed = parse(parser, arguments)
    factor = TASKS[parsed.task]
    parsed.severity = list(dict.fromkeys(parsed.severity or USUAL[factor]))
    return run_guarded(lambda: run(parsed), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
