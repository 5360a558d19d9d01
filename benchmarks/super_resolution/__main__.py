"""The x4 super-resolvers next to bicubic, RFDN and CARN-M: ``python -m benchmarks.super_resolution --images DIR...``.

Each folder is a set. Inputs are photographs shrunk as MATLAB's imresize does, as 8 bits; results are rounded to 8 bits
and compared without 4 pixels at the borders: PSNR and SSIM on Y (Rec. 601), and the distance of SqueezeNet's features,
lower is better. Speed is the median of rounds in which all take turns. A network without weights is a row that says so.

To compare trainings, give their files: ``--extra with=a/gan.safetensors without=b/gan.safetensors``.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from agents.command_line import OneLineParser, run_guarded
from benchmarks.report.publishing import add_outputs, check_outputs, markdown_table, parse, publish
from benchmarks.super_resolution.evaluation import (
    BICUBIC,
    MISSING,
    REFERENCE,
    SIZES,
    Distance,
    Photos,
    Scores,
    load_all,
    measure,
    measure_speed,
    networks_of,
    open_photos,
    parameters,
    parse_weights,
    upscaled,
)
from restore_env.images.arrays import Pixels
from restore_env.images.figures import write_figure
from restore_env.images.tiling import to_tensor
from restore_env.toolbox import Tool, usable_device
from sr_models.extractors.squeezenet import load_squeezenet
from sr_models.losses.perceptual import PerceptualDistance, default_extractor
from sr_models.training.blind_distortion import bicubic

PROGRAM = "benchmarks.super_resolution"
SHOWN_SIZE = 96
"""Side of the crops in the figure."""


def quality_table(scores: Mapping[str, Mapping[str, Scores | None]]) -> list[str]:
    """PSNR / SSIM / distance of every row on every set, as lines of Markdown."""
    rows = dict.fromkeys(name for of_set in scores.values() for name in of_set)
    lines = []
    for row in rows:
        found = [of_set[row] for of_set in scores.values()]
        cells = [MISSING if one is None else f"{one.psnr:.2f} / {one.ssim:.4f} / {one.distance:.4f}" for one in found]
        lines.append([row, *cells])
    return markdown_table(["x4: PSNR / SSIM / distance", *scores], lines)


def speed_table(models: Mapping[str, Tool | None], speed: Mapping[str, Mapping[int, float]]) -> list[str]:
    """Size, computation and speed of every model, as lines of Markdown."""
    head = ["model", "parameters, k", "MACs per input pixel, k"]
    head += [column for size in SIZES for column in (f"{size}x{size}, ms", f"of {REFERENCE}'s")]
    lines = []
    for name, tool in models.items():
        if tool is None:
            lines.append([name, *[MISSING] * (len(head) - 1)])
            continue
        cells = [name, f"{parameters(tool) / 1e3:.0f}", f"{tool.macs_per_pixel / 1e3:.0f}"]
        for size in SIZES:
            taken = speed[name][size] if name in speed else None
            reference = speed.get(REFERENCE, {}).get(size)
            cells.append("" if taken is None else f"{taken:.1f}")
            cells.append("" if taken is None or reference is None else f"{taken / reference:.2f}")
        lines.append(cells)
    return markdown_table(head, lines)


def hardest_crop(target: Pixels, plain: Pixels, size: int = SHOWN_SIZE) -> tuple[slice, slice]:
    """The square of ``size`` with the largest error of bicubic upscaling."""
    error = (to_tensor(target) - to_tensor(plain)).square().mean(1, keepdim=True)
    size = min(size, *error.shape[-2:])
    means = torch.nn.functional.avg_pool2d(error, size, stride=4)[0, 0]
    row, column = divmod(int(means.argmax()), means.shape[1])
    return slice(4 * row, 4 * row + size), slice(4 * column, 4 * column + size)


def draw(path: Path, tools: Mapping[str, Tool | None], sets: Mapping[str, Photos], shown: int, device: str) -> None:
    """Draw, for the first ``shown`` photographs of each set, the hardest crop as every row upscales it."""
    from matplotlib.figure import Figure

    there = {name: tool for name, tool in tools.items() if tool is not None}
    chosen = [target for photos in sets.values() for target in list(photos.values())[:shown]]
    columns = len(there) + 1
    figure = Figure(figsize=(1.9 * columns, 2.15 * len(chosen)), layout="constrained")
    axes = figure.subplots(len(chosen), columns, squeeze=False)
    for row, target in enumerate(chosen):
        small = bicubic(target)
        crop = hardest_crop(target, upscaled(there[BICUBIC], small, device))
        panels = {name: upscaled(tool, small, device) for name, tool in there.items()} | {"photograph": target}
        for panel, (name, pixels) in zip(axes[row], panels.items(), strict=True):
            panel.imshow(pixels[crop], interpolation="nearest")
            panel.set_axis_off()
            if not row:
                panel.set_title(name, fontsize=9)
    write_figure(path, figure)


def open_distance(squeezenet: Path | None, device: str) -> Distance:
    """The perceptual distance, by the prior's trunk or by ImageNet's weights from a file."""
    extractor = copy.deepcopy(default_extractor()) if squeezenet is None else load_squeezenet(squeezenet)
    return PerceptualDistance(extractor.to(device))


def complain(text: str) -> None:
    """Print what is missing on standard error."""
    print(f"{PROGRAM}: {text}", file=sys.stderr)


def note(arguments: argparse.Namespace) -> str:
    """What the numbers depend on."""
    where = f"on {arguments.device}" + (f", {torch.get_num_threads()} thread(s)" if arguments.device == "cpu" else "")
    extractor = "the shipped prior's trunk" if arguments.squeezenet is None else arguments.squeezenet.name
    return f"Distance by {extractor}. Parameters and MACs with the semantic prior where one is needed. Speed {where}."


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, draw."""
    check_outputs(arguments, arguments.section)
    if arguments.rounds < 0 or arguments.shown < 1:
        raise ValueError("--rounds must be 0 or more, --shown 1 or more")
    device = str(usable_device(arguments.device))
    sets = {folder.name: open_photos(folder) for folder in arguments.images}
    if len(sets) < len(arguments.images):
        raise ValueError("the folders of --images need names that differ: they name the columns")
    distance = open_distance(arguments.squeezenet, device)
    entries = networks_of(arguments.peers, parse_weights(arguments.extra), device)
    if len({entry.name for entry in entries}) < len(entries):
        raise ValueError(f"--extra needs names that differ from {', '.join(entry.name for entry in entries)}")
    tools = load_all(entries, complain)
    scores = {name: measure(tools, photos, distance, device, complain) for name, photos in sets.items()}
    models: dict[str, Tool | None] = {}
    for entry in entries:
        models[entry.model] = models.get(entry.model) or tools[entry.name]
    there = {name: tool for name, tool in models.items() if tool is not None}
    speed = measure_speed(there, arguments.rounds, device) if arguments.rounds else {}
    tables = [quality_table(scores), speed_table(models, speed)]
    text = "\n\n".join("\n".join(table) for table in tables) + f"\n\n{note(arguments)}"
    record: dict[str, Any] = {
        "sets": {
            name: {row: None if each is None else asdict(each) for row, each in of_set.items()}
            for name, of_set in scores.items()
        },
        "models": {
            name: {"parameters": parameters(tool), "macs_per_pixel": tool.macs_per_pixel, "ms": speed.get(name)}
            for name, tool in there.items()
        },
    }
    publish(arguments, arguments.section, text, record)
    if arguments.figure is not None:
        draw(arguments.figure, tools, sets, arguments.shown, device)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__)
    parser.add_argument(
        "--images", type=Path, nargs="+", required=True, help="folders of clean photographs, a set each"
    )
    parser.add_argument("--peers", type=Path, help="folder of RFDN_AIM.pth and carn_m.pth")
    parser.add_argument("--extra", nargs="+", default=[], metavar="NAME=FILE", help="weights files, a further row each")
    parser.add_argument("--squeezenet", type=Path, help="weights (.npz) for the distance (default: the prior's)")
    parser.add_argument("--rounds", type=int, default=3, help="of measuring speed; 0 leaves it out (default 3)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--figure", type=Path, help="draw crops of all: PNG, PDF or SVG")
    parser.add_argument("--shown", type=int, default=1, help="photographs of each set in the figure (default 1)")
    add_outputs(parser)
    parser.add_argument("--section", default="super-resolution", help="of the card (default: super-resolution)")
    parsed = parse(parser, arguments)
    return run_guarded(lambda: run(parsed), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
