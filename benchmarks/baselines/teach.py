"""Write a published x4 network's outputs for photographs, as additional targets for training a super-resolver.

``python -m benchmarks.baselines.teach --images DIR --weights DIR --out DIR`` gives ``imagerestore train sr --teacher
DIR`` what it needs: every photograph at every scale of the protocol, shrunk bicubically and upscaled by the network.
Outputs that are there are not computed again. They take as much room as the photographs' pixels, at 3 bytes each.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from agents.command_line import OneLineParser, run_guarded
from benchmarks.baselines.published_x4 import PUBLISHED, SCALE, load_published
from benchmarks.report.publishing import parse
from restore_env.distortions.protocol import SCALES
from restore_env.images.files import write_atomically
from restore_env.images.sources import ImageSource, open_images
from restore_env.images.tiling import to_pixels, to_tensor
from restore_env.toolbox import Tool
from sr_models.training.blind_distortion import bicubic
from sr_models.training.teacher import output_path

PROGRAM = "benchmarks.baselines.teach"
SMALLEST = 96
"""Pixels along a side, of the smallest photographs that crops are taken of."""


def turned_mean(tool: Tool, images: Tensor, turns: Sequence[int]) -> Tensor:
    """The mean output for images ``(N, 3, H, W)`` turned by quarters, each turned back: better than one alone."""
    outputs = [tool(images.rot90(turn, (2, 3)).contiguous()).rot90(-turn, (2, 3)) for turn in turns]
    return torch.stack(outputs).mean(0)


@torch.inference_mode()
def write_outputs(tool: Tool, source: ImageSource, folder: Path, turns: Sequence[int] = (0, 2)) -> int:
    """Write what a tool makes of every photograph at every scale; return how many outputs were new."""
    folder.mkdir(parents=True, exist_ok=True)
    written = 0
    for index in range(len(source)):
        for scale in SCALES:
            path = output_path(folder, source.identity(index), scale)
            if min(source.size(index, scale)) < SMALLEST or path.exists():
                continue
            height, width = (length // SCALE * SCALE for length in source.size(index, scale))
            small = bicubic(np.ascontiguousarray(source.pixels(index, scale)[:height, :width]))
            buffer = io.BytesIO()
            np.save(buffer, to_pixels(turned_mean(tool, to_tensor(small), turns)))
            write_atomically(path, buffer.getvalue())
            written += 1
    return written


def run(arguments: argparse.Namespace) -> int:
    """Write the outputs and say how many."""
    tool = load_published(arguments.network, arguments.weights)
    source = open_images(arguments.images, min_size=SMALLEST)
    if not isinstance(source, ImageSource):
        raise ValueError(f"{arguments.images}: expected clean photographs, not pairs")
    print(f"{write_outputs(tool, source, arguments.out)} outputs of {arguments.network} written to {arguments.out}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--images", type=Path, required=True, help="folder of clean photographs")
    parser.add_argument("--weights", type=Path, required=True, help="folder of the authors' weight files")
    parser.add_argument("--out", type=Path, required=True, help="folder for the outputs")
    parser.add_argument("--network", choices=tuple(PUBLISHED), default="RFDN", help="the teacher (default RFDN)")
    parsed = parse(parser, arguments)
    return run_guarded(lambda: run(parsed), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
