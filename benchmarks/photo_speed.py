"""A whole photo by the toolchain and by one-network models, in one run: ``python -m benchmarks.photo_speed``.

Seconds, from pixels to pixels, and peak memory of ``restore`` next to those of VDSR, DnCNN, their small versions and
OWAN on the same photo. Each network runs in the tiles that tools run in, and on the photo as a whole. With
``--backends`` other backends take turns, too, at all that they can run, the rivals like the tools. Speed does not
depend on weights: the networks are untrained. OWAN's attention looks at the whole image; in tiles, overlapping by 64
pixels, it gives another result. Methods take turns, and of each the best round counts.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from agents.cli import OneLineParser, run_guarded
from agents.commands.arguments import positive_float, positive_int
from agents.restoration.restorer import Restorer
from benchmarks.baselines.table import find_baseline
from benchmarks.baselines.weights import BaselineWeights, as_tool
from benchmarks.machine import environment, peak_memory
from benchmarks.publishing import add_outputs, check_outputs, parse, publish
from benchmarks.stopwatch import CLOCKS, best_of
from restore_env.images.decoding import read_image
from restore_env.images.tiling import apply_tool, to_pixels, to_tensor
from restore_env.toolbox import FunctionTool, Tool
from tools_zoo.backends.network_tool import BACKENDS, DEFAULT_BACKEND, NetworkTool, check_runs_on
from tools_zoo.backends.parity import ParityError

PROGRAM, SECTION = "benchmarks.photo_speed", "photo"
NETWORKS = ("vdsr", "vdsr_s", "dncnn", "dncnn_s", "owan")
NOISE = 20.0
"""Standard deviation of the photo's noise, of 255."""
OVERLAP, LARGE_TILE = 64, 512
"""Pixels around the tiles, and along their sides, of a network that would look at the whole image."""

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Row:
    """What a method takes."""

    method: str
    tiled: bool
    seconds_per_megapixel: float
    peak_mib: float | None
    """Memory beyond what was taken before; None where the system does not tell."""
    gmacs_per_megapixel: float
    """Of the networks, without what tiles share and the agent's looks."""


@dataclass(frozen=True)
class Way:
    """A way to restore the photo."""

    method: str
    tiled: bool
    restore: Callable[[Pixels], float]
    """Returns what the networks computed, GMAC."""


def photo(megapixels: float) -> Pixels:
    """A noisy photo of a size, 3:2, uint8 RGB ``(H, W, 3)``: a part of a photograph of scikit-image's, repeated."""
    import skimage.data

    height = max(63, round((megapixels * 1e6 / 1.5) ** 0.5))
    width = max(63, round(megapixels * 1e6 / height))
    part = np.asarray(skimage.data.astronaut())[:256, 128:384]  # type: ignore[no-untyped-call]
    repeated = np.tile(part, (math.ceil(height / 256), math.ceil(width / 256), 1))[:height, :width].astype(np.float32)
    repeated += np.random.default_rng(0).standard_normal(repeated.shape, dtype=np.float32) * NOISE
    return np.asarray(repeated.round().clip(0, 255), dtype=np.uint8)


def ways(arguments: argparse.Namespace) -> list[Way]:
    """The toolchains, then the networks, each in tiles and as a whole; then all again by the next backend."""
    device = arguments.device
    made: list[Way] = []
    for backend in arguments.backends:
        by = "" if backend == DEFAULT_BACKEND else f", by {backend}"
        agents = {name: Restorer(name, device=device, backend=backend) for name in arguments.toolboxes}
        made += [Way(f"toolchain, {name}{by}", True, _by_agent(agent)) for name, agent in agents.items()]
        for name in arguments.networks:
            try:
                tool = _network(name, device, backend)
            except ParityError as error:
                print(f"{PROGRAM}: {error}", file=sys.stderr)
                continue
            title = find_baseline(name).title + by
            made.append(Way(title, True, _in_tiles(tool, device)))
            made.append(Way(title, False, _tile_by_tile(tool, device, 10**6)))
    return made


def _network(name: str, device: str, backend: str) -> Tool:
    """An untrained network at its fastest; ParityError if the backend does not know its layers."""
    row = find_baseline(name)
    tool = as_tool(BaselineWeights(row, row.network().state_dict(), {})).to(device)
    if backend == DEFAULT_BACKEND:
        return tool
    other = NetworkTool(row.name, tool.network, tool.macs_per_pixel, tool.receptive_radius or 0, backend)
    other(torch.zeros(1, 3, 8, 8, device=device))  # the first call converts it
    return FunctionTool(row.name, other, tool.scale, tool.macs_per_pixel, tool.receptive_radius)


def _by_agent(restorer: Restorer) -> Callable[[Pixels], float]:
    return lambda pixels: restorer.restore(pixels).gmacs


def _in_tiles(tool: Tool, device: str) -> Callable[[Pixels], float]:
    if tool.receptive_radius is not None:
        return _tile_by_tile(tool, device, None)
    cut = FunctionTool(tool.name, tool, tool.scale, tool.macs_per_pixel, OVERLAP)
    return _tile_by_tile(cut, device, LARGE_TILE)


def _tile_by_tile(tool: Tool, device: str, tile: int | None) -> Callable[[Pixels], float]:
    def restore(pixels: Pixels) -> float:
        to_pixels(apply_tool(tool, to_tensor(pixels), device, tile=tile))
        return float(tool.macs_per_pixel * pixels.shape[0] * pixels.shape[1] / 1e9)

    return restore


def measure(arguments: argparse.Namespace, pixels: Pixels) -> list[Row]:
    """Restore the photo in every way."""
    contenders = {f"{way.method}, {'in tiles' if way.tiled else 'whole'}": way for way in ways(arguments)}
    first: dict[str, tuple[float, float | None]] = {}
    for name, way in contenders.items():
        way.restore(pixels[:63, :63])
        with peak_memory(arguments.device) as peak:
            gmacs = way.restore(pixels)
        first[name] = gmacs, peak.mib
        print(f"[{len(first)}/{len(contenders)}] {name}", file=sys.stderr)
    work = {name: partial(way.restore, pixels) for name, way in contenders.items()}
    seconds = best_of(work, arguments.rounds, arguments.seconds, arguments.clock)
    megapixels = pixels.shape[0] * pixels.shape[1] / 1e6
    return [
        Row(way.method, way.tiled, seconds[name] / megapixels, first[name][1], first[name][0] / megapixels)
        for name, way in contenders.items()
    ]


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown, times against the first one's."""
    lines = [
        "| method | | s/megapixel | times the first | peak memory, MiB | GMAC/megapixel |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        peak = "" if row.peak_mib is None else f"{row.peak_mib:.0f}"
        times = row.seconds_per_megapixel / rows[0].seconds_per_megapixel
        lines.append(
            f"| {row.method} | {'in tiles' if row.tiled else 'whole'} | {row.seconds_per_megapixel:.2f} | {times:.2f} |"
            f" {peak} | {row.gmacs_per_megapixel:.0f} |"
        )
    return "\n".join(lines)


def run(arguments: argparse.Namespace) -> int:
    """Measure, print and write."""
    check_outputs(arguments, SECTION)
    unknown = [name for name in arguments.networks if find_baseline(name).factor != 1]
    if unknown:
        raise ValueError(f"{unknown[0]} enlarges; choose from {', '.join(NETWORKS)}")
    for backend in arguments.backends:
        check_runs_on(backend, arguments.device)
    if not [*arguments.toolboxes, *arguments.networks]:
        raise ValueError("nothing to measure: name --toolboxes or --networks")
    pixels = photo(arguments.megapixels) if arguments.image is None else read_image(arguments.image).pixels
    rows, facts = measure(arguments, pixels), environment(arguments.device)
    height, width = pixels.shape[:2]
    told = (
        f"A photo of {width}x{height}, {arguments.clock} time, {facts['threads']} thread(s),"
        f" {facts['processor'] if arguments.device == 'cpu' else facts['device']}; the networks are untrained, which"
        " does not change their speed."
    )
    settings = {name: getattr(arguments, name) for name in ("clock", "rounds")}
    record: dict[str, Any] = {"environment": facts, **settings, "width": width, "height": height}
    publish(arguments, SECTION, f"{told}\n\n{table(rows)}", record | {"rows": [asdict(row) for row in rows]})
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--image", type=Path, help="the photo (default: a noisy one that is made)")
    parser.add_argument("--megapixels", type=positive_float, default=2.0, help="of the one that is made (default 2)")
    parser.add_argument(
        "--toolboxes", nargs="*", default=["default", "classic"], metavar="NAME", help="names or folders"
    )
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), metavar="NAME")
    parser.add_argument(
        "--backends",
        nargs="+",
        default=[DEFAULT_BACKEND],
        metavar="NAME",
        help=f"what runs them, of {', '.join(BACKENDS)} (default {DEFAULT_BACKEND})",
    )
    parser.add_argument("--rounds", type=positive_int, default=3, help="of each method, at most (default 3)")
    parser.add_argument("--seconds", type=positive_float, default=30.0, help="no further round after so many")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall", help="wall (default), or the processor's")
    parser.add_argument("--device", default="cpu")
    add_outputs(parser)
    parsed = parse(parser, arguments)
    return run_guarded(lambda: run(parsed), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
