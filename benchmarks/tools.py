"""Measure each tool on patches of its own distortion and band: ``python -m benchmarks.tools --images DIR``.

With ``--severity`` each tool is measured on the patches of every tool: those of that severity in whose distortion its
kind and band are the strongest part.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
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
from tools_zoo.training.tools import draw_band, draw_strongest

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


def _mean_psnr(tool: Tool | None, pairs: Batch) -> float:
    """Mean of the patches' PSNR, dB, after the tool; None: of the input."""
    return float(_psnrs(tool, pairs).mean())


@torch.inference_mode()
def _psnrs(tool: Tool | None, pairs: Batch) -> npt.NDArray[np.float64]:
    """PSNR of each patch, dB, after the tool; None: of the input."""
    scores = []
    for start in range(0, len(pairs[0]), BATCH_SIZE):
        inputs, targets = (as_tensor(side[start : start + BATCH_SIZE]) for side in pairs)
        scores.append(psnr(inputs if tool is None else tool(inputs), targets))
    return np.asarray(torch.cat(scores).numpy())


@dataclass(frozen=True)
class FirstChoice:
    """All tools as the first one on the patches of one tool."""

    tool: str
    gains: tuple[float, ...]
    """Mean gain of each tool of the table, dB."""
    chosen: tuple[float, ...]
    """Share of the patches on which each tool is the best."""

    @property
    def honest(self) -> bool:
        """Whether the tool is the best one more often than any other, and gains 95 % of what the best of them does."""
        own = [spec.name for spec in TOOLS].index(self.tool)
        return self.chosen[own] == max(self.chosen) and self.gains[own] >= 0.95 * max(self.gains)


def first_choices(source: ImageSource, toolbox: Toolbox, severity: str, patches: int, seed: int) -> list[FirstChoice]:
    """Measure every tool on the patches of each."""
    rows = []
    for number, spec in enumerate(TOOLS):
        print(f"[{number + 1}/{len(TOOLS)}] {spec.name}", file=sys.stderr, flush=True)
        sampler = PatchSampler(source, range(len(source)), PATCH_SIZE, partial(draw_strongest, spec, severity))
        pairs = sampler.batch(np.random.default_rng([seed, number]), patches)
        before = _psnrs(None, pairs)
        gains = np.stack([_psnrs(toolbox[toolbox.action(other.name)], pairs) - before for other in TOOLS])
        best = np.bincount(gains.argmax(axis=0), minlength=len(TOOLS)) / patches
        rows.append(FirstChoice(spec.name, tuple(gains.mean(axis=1).tolist()), tuple(best.tolist())))
    return rows


def choices_markdown(rows: Sequence[FirstChoice]) -> str:
    """The gains as a table, a row for each tool's patches; in brackets the percentage on which a tool is the best."""
    heads = ["patches of", *(spec.name for spec in TOOLS), "honest"]
    lines = []
    for row in rows:
        cells = [f"{gain:+.2f} ({share:.0%})" for gain, share in zip(row.gains, row.chosen, strict=True)]
        lines.append([row.tool, *cells, "yes" if row.honest else "no"])
    return "\n".join(markdown_table(heads, lines))


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
    if arguments.severity is not None and arguments.against is not None:
        raise ValueError("--against compares tools on their own distortions: leave out --severity")
    ours, published = _load(arguments.toolbox), None if arguments.against is None else _load(arguments.against)
    source = open_images(arguments.images, min_size=PATCH_SIZE)
    if not isinstance(source, ImageSource):
        raise ValueError("tools are measured on clean photographs, not on pairs")
    if arguments.severity is not None:
        choices = first_choices(source, ours, arguments.severity, arguments.patches, arguments.seed)
        caption = (
            f"Mean gain in dB over {arguments.patches} patches of severity {arguments.severity} a row; photographs:"
            f" {len(source)}. Honest: best on more patches than any other, with 95 % of the best mean gain."
        )
        record = {"images": len(source), "choices": [asdict(row) for row in choices]}
        publish(arguments, f"{choices_markdown(choices)}\n\n{caption}", record)
        return 0
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
    parser.add_argument("--severity", help='measure every tool on every tool\'s patches of it, such as "mixed"')
    parser.add_argument("--patches", type=positive_int, default=500, help="patches per tool (default 500)")
    parser.add_argument("--seed", type=int, default=0)
    add_outputs(parser)
    parsed = parse(parser, arguments)
    return run_guarded(lambda: run(parsed), PROGRAM)


if __name__ == "__main__":
    sys.exit(main())
