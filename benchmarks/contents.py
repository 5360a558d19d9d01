"""x4 networks by what an image shows: ``python -m benchmarks.contents``.

Text, line art, a table, bricks, grass, gravel, a face, sky and flat colours, each reduced bicubically and upscaled by
every method: perceptual distance and two judges without a network. What is worse than Lanczos is marked. On flat
colours, where every structure is invented, the strongest frequency of what a method adds is measured.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from agents.command_line import OneLineParser, run_guarded
from benchmarks.compare.method import Method
from benchmarks.compare.methods import METHODS, Setting, add_weights, make_method, named_weights, usual_methods
from benchmarks.compare.metrics import HEADS, LOWER_IS_BETTER, metrics_of
from benchmarks.report.publishing import add_outputs, check_outputs, markdown_table, parse, publish
from restore_env.images.arrays import Pixels
from restore_env.images.tiling import to_tensor
from restore_env.toolbox import usable_device
from sr_models.training import drawings
from sr_models.training.blind_distortion import bicubic

PROGRAM = "benchmarks.contents"
SIDE = 384
"""Pixels of a content at most, along a side."""
SEED = 2**32
"""Of the drawings: none that training draws."""
REFERENCE = "lanczos"
JUDGES = ("psnr_y", "distance", "ssimulacra2", "flip")
FLAT_SIDE, FLAT_LEVELS = 48, (16, 64, 128, 192, 240)
"""Pixels of a flat input, and its colours: each of these grey, and with one channel at 128."""


def _drawn(kind: str) -> Pixels:
    return drawings.drawing(SIDE, np.random.default_rng(SEED), kind)


def _photographed(name: str, top: int = 0, left: int = 0, side: int = SIDE) -> Pixels:
    """A part of one of scikit-image's pictures, RGB."""
    from skimage import data

    image = np.asarray(getattr(data, name)())
    part = image[top : top + side, left : left + side]
    return np.ascontiguousarray(np.repeat(part[..., None], 3, axis=2) if image.ndim == 2 else part[..., :3])


CONTENTS: Mapping[str, Callable[[], Pixels]] = MappingProxyType(
    {
        "text": partial(_drawn, "text"),
        "line art": partial(_drawn, "lines"),
        "table": partial(_drawn, "table"),
        "brick": partial(_photographed, "brick"),
        "grass": partial(_photographed, "grass"),
        "gravel": partial(_photographed, "gravel"),
        "face": partial(_photographed, "astronaut", 0, 120, 256),
        "sky": partial(_photographed, "rocket", 0, 0, 200),
    }
)
"""What is shown, by name: uint8 RGB ``(H, W, 3)``."""


def lattice(image: Tensor, colour: Tensor) -> float:
    """The amplitude of the strongest frequency that an image adds to a flat colour, in levels of 255.

    Args:
        image: ``(1, 3, H, W)`` float RGB; a quarter at each border is left out.
        colour: ``(1, 3, 1, 1)``.
    """
    height, width = (length // 4 for length in image.shape[2:])
    added = (image - colour)[0, :, height:-height, width:-width]
    added = added - added.mean((1, 2), keepdim=True)
    return float(255 * 2 * torch.fft.fft2(added).abs().max() / added[0].numel())


def worst_lattice(network: Callable[[Tensor], Tensor]) -> float:
    """The strongest frequency that a x4 network adds to any of the flat colours, in levels of 255."""
    worst = 0.0
    for level in FLAT_LEVELS:
        for channel in (None, 0, 1, 2):
            colour = torch.full((1, 3, 1, 1), level / 255)
            if channel is not None:
                colour[:, channel] = 128 / 255
            worst = max(worst, lattice(network(colour.expand(1, 3, FLAT_SIDE, FLAT_SIDE).contiguous()), colour))
    return worst


@dataclass(frozen=True)
class Judged:
    """What the judges say of one method."""

    method: Method
    scores: Mapping[str, Mapping[str, float]]
    """By judge and content."""
    lattice: float


@torch.inference_mode()
def judge(method: Method, device: str) -> Judged:
    """Upscale every content by a method."""
    metrics, network = metrics_of(4, device=device), method.toolbox[0]
    scores: dict[str, dict[str, float]] = {name: {} for name in JUDGES if name in metrics}
    for content, make in CONTENTS.items():
        target = make()
        height, width = (length // 4 * 4 for length in target.shape[:2])
        target = np.ascontiguousarray(target[:height, :width])
        output = network(to_tensor(bicubic(target)).to(device)).float().clamp(0, 1).cpu()
        for name, own in scores.items():
            own[content] = float(metrics[name](output, to_tensor(target))[0])
    return Judged(method, scores, worst_lattice(lambda small: network(small.to(device)).float().cpu()))


def table(judged: Sequence[Judged], name: str) -> list[str]:
    """A judge's table: a content a row, a method a column; worse than Lanczos in bold."""
    sign = 1 if name in LOWER_IS_BETTER else -1
    reference = next((one for one in judged if one.method.name == REFERENCE), None)
    rows = []
    for content in CONTENTS:
        cells = [content]
        for one in judged:
            value = one.scores[name][content]
            worse = reference is not None and sign * (value - reference.scores[name][content]) > 0
            text = f"{value:{HEADS[name][1]}}"
            cells.append(f"**{text}**" if worse and one is not reference else text)
        rows.append(cells)
    return [f"\n{HEADS[name][0]}\n", *markdown_table(["content", *(one.method.name for one in judged)], rows)]


def run(arguments: argparse.Namespace) -> int:
    """Judge method after method, print and write."""
    check_outputs(arguments)
    unknown = [name for name in arguments.methods or () if name not in METHODS[4]]
    if unknown:
        raise ValueError(f"unknown method {unknown[0]!r}: choose from {', '.join(METHODS[4])}")
    usable_device(arguments.device)
    setting = Setting(
        factor=4, peers=arguments.peers, weights=named_weights(arguments.weights), device=arguments.device
    )
    names = arguments.methods or [name for name in usual_methods(setting) if "default" not in name]
    judged = [judge(make_method(name, setting), arguments.device) for name in names]
    lines = [line for name in judged[0].scores for line in table(judged, name)]
    lines += ["\nStrongest frequency added to flat colours, levels of 255\n"]
    lines += markdown_table([one.method.name for one in judged], [[f"{one.lattice:.2f}" for one in judged]], left=0)
    record = {one.method.name: {"scores": one.scores, "lattice": one.lattice} for one in judged}
    publish(arguments, "\n".join(lines), {"methods": record})
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="default: all whose weights are available")
    add_weights(parser)
    parser.add_argument("--device", default="cpu")
    add_outputs(parser)
    parsed = parse(parser, arguments)
    return run_guarded(lambda: run(parsed), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
