"""Photographs that have no target, before and after: ``python -m benchmarks.real_photos --images DIR``.

Real photographs are judged by eye, in the picture, and by measures that need no target (``benchmarks.no_reference``):
noise, blur, blocks, side by side, for none is enough by itself. With ``--synthetic`` the photographs are clean ones
that are made noisy as a small camera does it (signal-dependent noise, then JPEG).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agents.cli import OneLineParser, run_guarded
from agents.commands.arguments import positive_int
from benchmarks.machine import environment
from benchmarks.methods import METHODS, ORACLES, Method, Setting, usual_methods
from benchmarks.no_reference import MEASURES, READING, Pixels
from benchmarks.photographs import draw_photographs, restore_pixels
from benchmarks.publishing import add_outputs, check_outputs, parse, publish
from benchmarks.results import Failure
from benchmarks.severities import CAMERA, distortion_of
from restore_env import Task
from restore_env.images.figures import write_figure
from restore_env.images.sources import ImageSource, open_images, short_names
from restore_env.toolbox import usable_device

PROGRAM, SECTION = "benchmarks.real_photos", "real"
INPUT = "input"
"""The method that leaves photographs as they are."""
BLIND = tuple(ORACLES)
"""Methods of the same-size task that look at the target."""


@dataclass(frozen=True)
class Outcome:
    """A photograph after a method."""

    method: str
    title: str
    photograph: str
    toolchain: tuple[str, ...]
    measures: Mapping[str, float]


def open_photographs(arguments: argparse.Namespace) -> dict[str, Pixels]:
    """The photographs that are restored, by name."""
    if arguments.synthetic:
        task = Task(images=arguments.images, upscale=(1,), **distortion_of(CAMERA))
        drawn = draw_photographs(task, 1, arguments.seed, arguments.side)
        return dict(
            zip(short_names([start.image for start in drawn]), (start.degraded for start in drawn), strict=True)
        )
    source = open_images(arguments.images, min_size=1)
    if not isinstance(source, ImageSource):
        raise ValueError("photographs without targets are restored, not pairs")
    names = short_names([source.identity(index) for index in range(len(source))])
    return {name: source.pixels(index) for index, name in enumerate(names)}


def restore(method: Method, photographs: Mapping[str, Pixels]) -> tuple[list[Outcome], dict[str, Pixels]]:
    """All photographs by one method: what was measured, and the results."""
    outcomes, images = [], {}
    for name, pixels in photographs.items():
        images[name], chain = restore_pixels(method, pixels)
        measures = {key: measure.of(images[name]) for key, measure in MEASURES.items()}
        outcomes.append(Outcome(method.name, method.title, name, chain, measures))
    return outcomes, images


def summary_table(outcomes: Sequence[Outcome], failures: Sequence[Failure]) -> str:
    """The means over the photographs by method, as Markdown."""
    heads = [measure.title for measure in MEASURES.values()]
    rows = [f"| method | {' | '.join(heads)} |", f"|---|{'---:|' * len(heads)}"]
    for name in dict.fromkeys(outcome.method for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.method == name]
        means = (np.mean([outcome.measures[key] for outcome in own]) for key in MEASURES)
        cells = [f"{mean:{measure.form}}" for mean, measure in zip(means, MEASURES.values(), strict=True)]
        rows.append(f"| {own[0].title} | {' | '.join(cells)} |")
    rows += [f"| {one.name} | failed: {one.reason} |{' |' * (len(heads) - 1)}" for one in failures]
    return "\n".join(rows)


def photograph_table(outcomes: Sequence[Outcome]) -> str:
    """Every photograph by every method, as Markdown: noise / blur / blocks, and the chain."""
    methods = {outcome.method: outcome.title for outcome in outcomes}
    found = {(outcome.photograph, outcome.method): outcome for outcome in outcomes}
    rows = [f"| noise / blur / blocks | {' | '.join(methods.values())} |", f"|---|{'---|' * len(methods)}"]
    for photograph in dict.fromkeys(outcome.photograph for outcome in outcomes):
        cells = []
        for method in methods:
            outcome = found[photograph, method]
            numbers = " / ".join(f"{outcome.measures[key]:{measure.form}}" for key, measure in MEASURES.items())
            chain = outcome.toolchain if len(outcome.toolchain) > 1 else ()
            cells.append(f"{numbers}{f' ({chr(32).join(chain)})' if chain else ''}")
        rows.append(f"| {photograph} | {' | '.join(cells)} |")
    return "\n".join(rows)


def changed_most(before: Pixels, results: Sequence[Pixels], side: int) -> tuple[slice, slice]:
    """Where a crop of ``side`` pixels differs most from what came in, over all results."""
    import cv2

    height, width = before.shape[:2]
    rows, columns = min(side, height), min(side, width)
    changed = np.mean([np.abs(after.astype(np.float64) - before).mean(axis=2) for after in results], axis=0)
    means = cv2.boxFilter(changed, -1, (columns, rows), anchor=(0, 0), borderType=cv2.BORDER_REPLICATE)
    valid = means[: height - rows + 1, : width - columns + 1]
    top, left = np.unravel_index(int(valid.argmax()), valid.shape)
    return slice(int(top), int(top) + rows), slice(int(left), int(left) + columns)


def draw(path: Path, photographs: Mapping[str, Pixels], results: Mapping[str, Mapping[str, Pixels]], side: int) -> None:
    """Draw the crop of each photograph that changes most: a row each, a column for what came in and for each method.

    Args:
        path: PNG, PDF or SVG; appears whole or not at all.
        photographs: as they come in, by name.
        results: by the methods' titles and the photographs' names.
        side: of the crops, pixels.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.3 * (1 + len(results)), 2.4 * len(photographs)), layout="constrained")
    axes = figure.subplots(len(photographs), 1 + len(results), squeeze=False)
    for panel in axes.flat:
        panel.set_axis_off()
    for row, (name, before) in zip(axes, photographs.items(), strict=True):
        after = {title: images[name] for title, images in results.items()}
        window = changed_most(before, list(after.values()) or [before], side)
        for panel, (title, image) in zip(row, {f"{name}, input": before, **after}.items(), strict=True):
            panel.imshow(image[window], interpolation="nearest")
            panel.set_title(title, fontsize=8)
    write_figure(path, figure)


def check(arguments: argparse.Namespace) -> None:
    """Find mistakes before the work; raise ``ValueError`` in one line."""
    usable_device(arguments.device)
    check_outputs(arguments, SECTION)
    known = [name for name in METHODS[1] if name not in BLIND]
    unknown = [name for name in arguments.methods or [] if name not in known]
    if unknown:
        raise ValueError(f"unknown method {unknown[0]!r}: choose from {', '.join(known)}")
    if arguments.images is None and not arguments.synthetic:
        raise ValueError("give photographs by --images, or --synthetic for bundled ones with a camera's noise")


def run(arguments: argparse.Namespace) -> int:
    """Restore, measure, print, draw."""
    check(arguments)
    setting = Setting(published=arguments.published, owan=arguments.owan, device=arguments.device, seed=arguments.seed)
    usual = [name for name in usual_methods(setting) if name not in (*BLIND, "fixed")]
    names = list(dict.fromkeys([INPUT, *(arguments.methods or usual)]))
    photographs = open_photographs(arguments)
    outcomes: list[Outcome] = []
    failures: list[Failure] = []
    results: dict[str, dict[str, Pixels]] = {}
    for number, name in enumerate(names, 1):
        try:
            method = METHODS[1][name](setting)
            own, images = restore(method, photographs)
        except Exception as error:
            if name == INPUT:
                raise
            failures.append(Failure(name, " ".join(str(error).split()) or type(error).__name__))
            print(f"[{number}/{len(names)}] {name}: failed: {failures[-1].reason}", file=sys.stderr)
            continue
        outcomes += own
        results |= {} if name == INPUT else {method.title: images}
        print(f"[{number}/{len(names)}] {name}: done", file=sys.stderr)
    what = "made noisy as a small camera would" if arguments.synthetic else "as they are"
    caption = f"{len(photographs)} photographs, {what}; means above, each below. {READING}"
    text = "\n\n".join([summary_table(outcomes, failures), caption, photograph_table(outcomes)])
    record: dict[str, Any] = {
        "environment": environment(arguments.device),
        "synthetic": arguments.synthetic,
        "outcomes": [asdict(outcome) for outcome in outcomes],
        "failures": [asdict(one) for one in failures],
    }
    publish(arguments, SECTION, text, record)
    if arguments.figure is not None:
        shown = {name: photographs[name] for name in list(photographs)[: arguments.shown]}
        draw(arguments.figure, shown, results, arguments.crop)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--images", type=Path, help="folder of photographs without targets (with --synthetic: clean)")
    parser.add_argument("--synthetic", action="store_true", help="make clean photographs noisy as a small camera does")
    parser.add_argument("--side", type=positive_int, default=512, help="with --synthetic: crop to it (default 512)")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="default: all that there are weights for")
    parser.add_argument("--published", type=Path, metavar="DIR", help="what imagerestore import-rl-restore wrote")
    parser.add_argument("--owan", type=Path, metavar="FILE", help="OWAN's published weights, model_best.pth")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw crops, before and after: PNG, PDF or SVG")
    parser.add_argument("--shown", type=positive_int, default=4, help="photographs in the picture (default 4)")
    parser.add_argument("--crop", type=positive_int, default=128, help="side of the crops, pixels (default 128)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    add_outputs(parser)
    parsed = parse(parser, arguments)
    return run_guarded(lambda: run(parsed), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
