"""How cost grows with the number of environments and with the size of a photo: ``python -m benchmarks.scaling``.

Environments are stepped by a uniformly random policy, resets included. Photos, noisy ones that are made of the same
picture at every size, are restored by the toolbox's agent. Linear is what the smallest size takes, times how many times
larger another one is: as many steps, or megapixels, per second. Sizes take turns, and of each the best round counts.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gymnasium.vector import AutoresetMode

from agents.cli import OneLineParser, run_guarded
from agents.commands.arguments import positive_float, positive_int
from agents.restoration.restorer import Restorer
from benchmarks.machine import environment, peak_memory
from benchmarks.photo_speed import photo
from benchmarks.publishing import add_outputs, check_outputs, parse, publish
from benchmarks.stopwatch import CLOCKS, best_of
from benchmarks.throughput import random_play
from restore_env import ImageRestoreVectorEnv
from restore_env.images.figures import write_figure
from tools_zoo import load_toolbox

PROGRAM, SECTION = "benchmarks.scaling", "scaling"


@dataclass(frozen=True)
class Point:
    """What one size takes."""

    size: float
    """Environments, or megapixels."""
    seconds: float
    """For one step of all of them, or for the photo."""
    peak_mib: float | None = None
    """Memory taken for the photo beyond what was taken before."""

    @property
    def rate(self) -> float:
        """Sizes per second: environment steps, or megapixels."""
        return self.size / self.seconds


def measure_environments(arguments: argparse.Namespace) -> list[Point]:
    """Step each number of environments."""
    toolbox = load_toolbox(arguments.toolbox, arguments.device)
    task: dict[str, Any] = {"images": arguments.images, "toolbox": toolbox, "upscale": (1,)}
    envs = [ImageRestoreVectorEnv(n, autoreset_mode=AutoresetMode.SAME_STEP, **task) for n in sorted(arguments.envs)]
    plays = {float(env.num_envs): random_play(env, env.num_envs, len(toolbox) + 1) for env in envs}

    # few environments are stepped more often, so that what they happen to choose evens out
    steps = {size: max(4, round(arguments.least_steps / size)) for size in plays}
    work = {size: partial(_repeat, play, steps[size]) for size, play in plays.items()}
    best = best_of(work, arguments.rounds, arguments.seconds, arguments.clock)
    for env in envs:
        env.close()
    return [Point(size, seconds / steps[size]) for size, seconds in best.items()]


def _repeat(play: Callable[[], int], times: int) -> None:
    for _ in range(times):
        play()


def measure_photos(arguments: argparse.Namespace) -> list[Point]:
    """Restore a photo of each size."""
    restorer = Restorer(arguments.toolbox, device=arguments.device)
    photos = {size: photo(size) for size in sorted(arguments.megapixels)}
    restorer.restore(photo(0.02))
    peaks = {}
    for size, pixels in photos.items():
        with peak_memory(arguments.device) as peak:
            restorer.restore(pixels)
        peaks[size] = peak.mib
        print(f"{size:g} megapixels restored", file=sys.stderr)

    work = {size: partial(restorer.restore, pixels) for size, pixels in photos.items()}
    best = best_of(work, arguments.rounds, arguments.seconds, arguments.clock)
    return [Point(size, seconds, peaks[size]) for size, seconds in best.items()]


def environment_table(points: Sequence[Point]) -> str:
    """Environment steps per second as Markdown; against those of the fewest environments."""
    lines = ["| environments | steps/s | ms a step of all | speed of the fewest |", "|---:|---:|---:|---:|"]
    first = points[0]
    lines += [
        f"| {point.size:g} | {point.rate:.0f} | {point.seconds * 1e3:.1f} | {point.rate / first.rate:.0%} |"
        for point in points
    ]
    return "\n".join(lines)


def photo_table(points: Sequence[Point]) -> str:
    """Seconds per photo as Markdown; megapixels per second against those of the smallest."""
    lines = [
        "| megapixels | seconds | s/megapixel | speed of the smallest | peak memory, MiB |",
        "|---:|---:|---:|---:|---:|",
    ]
    first = points[0]
    for point in points:
        peak = "" if point.peak_mib is None else f"{point.peak_mib:.0f}"
        lines.append(
            f"| {point.size:g} | {point.seconds:.2f} | {1 / point.rate:.2f} | {point.rate / first.rate:.0%} | {peak} |"
        )
    return "\n".join(lines)


def draw(path: Path, envs: Sequence[Point], photos: Sequence[Point]) -> None:
    """Draw both as a figure of two panels, each with the linear ideal."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    sizes = [point.size for point in envs]
    left.plot(sizes, [point.rate for point in envs], "o-", label="measured")
    left.plot(sizes, [envs[0].rate for _ in sizes], "--", label="cost that grows linearly")
    left.set(xlabel="environments", ylabel="environment steps per second", xscale="log")
    left.set_ylim(bottom=0)
    left.set_xticks(sizes, [f"{size:g}" for size in sizes], minor=False)
    sizes = [point.size for point in photos]
    right.plot(sizes, [point.seconds for point in photos], "o-", label="measured")
    right.plot(sizes, [size / photos[0].rate for size in sizes], "--", label="cost that grows linearly")
    right.set(xlabel="megapixels", ylabel="seconds for a photo")
    for axes in (left, right):
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend()
    write_figure(path, figure)


def run(arguments: argparse.Namespace) -> int:
    """Measure, print and write."""
    check_outputs(arguments, SECTION)
    envs, photos = measure_environments(arguments), measure_photos(arguments)
    facts = environment(arguments.device)
    where = facts["processor"] if arguments.device == "cpu" else facts["device"]
    told = f"Toolbox {arguments.toolbox}, {arguments.clock} time, {facts['threads']} thread(s), {where}."
    text = "\n\n".join([told, environment_table(envs), photo_table(photos)])
    record = {
        "environment": facts,
        **{name: getattr(arguments, name) for name in ("toolbox", "clock", "rounds")},
        "environments": [{**asdict(point), "steps_per_second": point.rate} for point in envs],
        "photos": [asdict(point) for point in photos],
    }
    publish(arguments, SECTION, text, record)
    if arguments.figure is not None:
        draw(arguments.figure, envs, photos)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--images", type=Path, help="photographs of the environments (default: the embedded ones)")
    parser.add_argument("--toolbox", default="default", help="shipped name or folder")
    parser.add_argument("--envs", type=positive_int, nargs="+", default=[1, 4, 16, 64, 256], metavar="N")
    parser.add_argument(
        "--megapixels", type=positive_float, nargs="+", default=[0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 12.0], metavar="MP"
    )
    parser.add_argument("--rounds", type=positive_int, default=3, help="of each size, at most (default 3)")
    parser.add_argument("--seconds", type=positive_float, default=20.0, help="no further round after so many")
    parser.add_argument("--least-steps", type=positive_int, default=512, help="environment steps in a round, at least")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall", help="wall (default), or the processor's")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw it: PNG, PDF or SVG")
    add_outputs(parser)
    parsed = parse(parser, arguments)
    return run_guarded(lambda: run(parsed), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
