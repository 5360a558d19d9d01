"""Measure each tool on patches of its own distortion and band: ``python -m benchmarks.tools --images DIR``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from agents.command_line import OneLineParser, positive_int, run_guarded
from benchmarks.report.publishing import add_outputs, check_outputs, markdown_table, parse, publish
from restore_env.images.sources import ImageSource, open_images
from restore_env.metrics import psnr
from restore_env.patches import PatchSampler
from restore_env.toolbox import Tool, Toolbox
from tools_zoo.catalog import TOOLS, ToolSpec
from tools_zoo.toolboxes import load_toolbox, read_manifest, toolbox_folder
from tools_zoo.training.losses import Batch, as_tensor
from tools_zoo.training.tools import draw_band

PROGRAM = "benchmarks.tools"
PATCH_SIZE = 63
BATCH_SIZE = 50


@dataclass(frozen=True)
class ToolScores:
    """Mean PSNR of one tool over its patches, dB, values not clipped."""

    tool: str
    distortion: str
    network: str
    psnr_input: float
    psnr_ours: float
    psnr_published: float | None = None


def measure(
    source: ImageSource, ours: Toolbox, published: Toolbox | None, networks: Mapping[str, str], patches: int, seed: int
) -> list[ToolScores]:
    """Measure every tool of the table on patches of its own band, both toolboxes on the same ones."""
    rows = []
    for number, spec in enumerate(TOOLS):
        print(f"[{number + 1}/{len(TOOLS)}] {spec.name}", file=sys.stderr, flush=True)
        sampler = PatchSampler(source, range(len(source)), PATCH_SIZE, partial(draw_band, spec))
        pairs = sampler.batch(np.random.default_rng([seed, number]), patches)
        boxes = (None, ours) if published is None else (None, ours, published)
        means = [_mean_psnr(None if box is None else box[box.action(spec.name)], pairs) for box in boxes]
        rows.append(ToolScores(spec.name, distortion_of(spec), networks[spec.name], *means))
    return rows


@torch.inference_mode()
def _mean_psnr(tool: Tool | None, pairs: Batch) -> float:
    """Mean of the patches' PSNR, dB, after the tool; None: of the input."""
    scores = []
    for start in range(0, len(pairs[0]), BATCH_SIZE):
        inputs, targets = (as_tensor(side[start : start + BATCH_SIZE]) for side in pairs)
        scores.append(psnr(inputs if tool is None else tool(inputs), targets))
    return float(torch.cat(scores).mean())


def distortion_of(spec: ToolSpec) -> str:
    """The tool's distortion and band in words."""
    kind, unit = {"blur": ("blur, sigma", " px"), "noise": ("noise, sigma", " of 255"), "jpeg": ("JPEG, quality", "")}[
        spec.kind
    ]
    return f"{kind} {spec.low:g} to {spec.high:g}{unit}"


def markdown(rows: Sequence[ToolScores]) -> str:
    """The table; with two columns more if the published tools were measured too."""
    heads = ["tool", "distortion", "network", "input, dB", "ours, dB"]
    if rows[0].psnr_published is not None:
        heads += ["published, dB", "difference, dB"]
    lines = []
    for row in rows:
        cells = [row.tool, row.distortion, row.network, f"{row.psnr_input:.2f}", f"{row.psnr_ours:.2f}"]
        if row.psnr_published is not None:
            cells += [f"{row.psnr_published:.2f}", f"{row.psnr_ours - row.psnr_published:+.2f}"]
        lines.append(cells)
    return "\n".join(markdown_table(heads, lines, left=3))


def _load(name: str) -> Toolbox:
    toolbox = load_toolbox(name)
    missing = [spec.name for spec in TOOLS if spec.name not in toolbox.names]
    if missing:
        raise ValueError(f"{name}: the toolbox has no {missing[0]}; all {len(TOOLS)} tools are measured")
    return toolbox


def run(arguments: argparse.Namespace) -> int:
    """Measure, print the table, and write the numbers where that was asked for."""
    check_outputs(arguments)
    ours, published = _load(arguments.toolbox), None if arguments.against is None else _load(arguments.against)
    source = open_images(arguments.images, min_size=PATCH_SIZE)
    if not isinstance(source, ImageSource):
        raise ValueError("tools are measured on clean photographs, not on pairs")
    networks = dict(read_manifest(toolbox_folder(arguments.toolbox)))
    rows = measure(source, ours, published, networks, arguments.patches, arguments.seed)
    caption = (
        f"Mean PSNR over {arguments.patches} patches of {PATCH_SIZE}x{PATCH_SIZE} pixels for each tool; photographs:"
        f" {len(source)}."
    )
    record = {"images": len(source), "tools": [asdict(row) for row in rows]}
    publish(arguments, f"{markdown(rows)}\n\n{caption}", record)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--images", type=Path, required=True, help="folder of clean photographs")
    parser.add_argument("--toolbox", default="default", help="name of a shipped toolbox, or a toolbox folder")
    parser.add_argument("--against", help="folder of the imported published toolbox, to compare with")
    parser.add_argument("--patches", type=positive_int, default=500, help="patches per tool (default 500)")
    parser.add_argument("--seed", type=int, default=0)
    add_outputs(parser)
    parsed = parse(parser, arguments)
    return run_guarded(lambda: run(parsed), PROGRAM)


if __name__ == "__main__":
    sys.exit(main())
