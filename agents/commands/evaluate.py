"""``imagerestore evaluate``: PSNR and SSIM before and after restoration, over two folders of paired images."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from agents.command_line import cell_width, progress_bar
from agents.commands.restore import add_restorer, open_restorer

if TYPE_CHECKING:
    from agents.restoration.restorer import Restorer

MEASURED = ("psnr_before", "psnr_after", "ssim_before", "ssim_after", "seconds", "gmacs")
"""The columns that are averaged over the images."""


def register(commands: Any) -> None:
    """Add ``evaluate``."""
    parser = commands.add_parser(
        "evaluate",
        help="measure PSNR and SSIM on pairs of distorted and clean images",
        description="Pairs the images of two folders by name (without tags such as _in and _gt), restores the distorted"
        " ones and measures the results as 8-bit images. An image that is 4 times smaller than its target is upscaled;"
        " the values before restoration are then those of bicubic upscaling.",
    )
    parser.add_argument("--distorted", type=Path, required=True, metavar="DIR", help="folder of distorted images")
    parser.add_argument("--target", type=Path, required=True, metavar="DIR", help="folder of clean images")
    parser.add_argument(
        "--scale", type=int, choices=(1, 2, 4), help="refuse pairs of another scale (default: each pair's own)"
    )
    add_restorer(parser)
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.set_defaults(run=evaluate)


def evaluate(arguments: argparse.Namespace) -> int:
    """Run ``imagerestore evaluate``."""
    from restore_env.images.sources import pair_folders

    pairs = pair_folders(arguments.distorted, arguments.target)
    restorer = open_restorer(arguments)
    rows: list[dict[str, Any]] = []
    for number, (distorted, target) in enumerate(pairs, 1):
        name = str(distorted.relative_to(arguments.distorted))
        label = f"[{number}/{len(pairs)}] {name}"
        rows.append(measure(restorer, name, distorted, target, label, arguments.scale))
    known = {key: [row[key] for row in rows if row[key] is not None] for key in MEASURED}
    mean = {key: fmean(values) if values else None for key, values in known.items()}
    if arguments.json:
        print(json.dumps({"mean": mean, "images": rows}, indent=2))
    else:
        print_table(mean, rows)
    return 0


def measure(
    restorer: Restorer, name: str, distorted: Path, target: Path, label: str, wanted: int | None = None
) -> dict[str, Any]:
    """Restore one image and compare it with its target before and after: one row of the result.

    Raises:
        ValueError: the target is not the ``wanted`` number of times as high and wide.
    """
    from restore_env.images.decoding import read_image
    from restore_env.images.sources import pair_factor
    from restore_env.images.tiling import ssim_in_tiles, to_pixels, to_tensor, upscale_bicubic

    photo, clean = read_image(distorted), read_image(target)
    scale = pair_factor(photo.pixels.shape[:2], clean.pixels.shape[:2], str(distorted))
    if wanted not in (None, scale):
        raise ValueError(f"{distorted}: its target is {scale} times as large, not {wanted}: omit --scale")
    with progress_bar(label) as show:
        result = restorer.restore(photo, clean, scale=scale, progress=show)
        before = to_pixels(upscale_bicubic(to_tensor(photo.pixels), scale))
        images = {"ssim_before": before, "ssim_after": result.image}
        ssims = {key: ssim_in_tiles(pixels, clean.pixels) for key, pixels in images.items()}
    measured = {name: getattr(result, name) for name in ("psnr_before", "psnr_after", "seconds", "gmacs", "scale")}
    return {"name": name, **measured, **ssims, "toolchain": list(result.toolchain)}


def print_table(mean: dict[str, Any], rows: Sequence[dict[str, Any]]) -> None:
    """Print rows and their mean in aligned columns."""
    table = [("image", "PSNR", "after", "gain", "SSIM", "after", "seconds", "GMACs", "toolchain")]
    for row in (*rows, {**mean, "name": f"mean of {len(rows)}", "toolchain": None}):
        before, after = ("-" if row[key] is None else f"{row[key]:.4f}" for key in ("ssim_before", "ssim_after"))
        table.append(
            (
                " ".join(row["name"].split()),
                f"{row['psnr_before']:.2f}",
                f"{row['psnr_after']:.2f}",
                f"{row['psnr_after'] - row['psnr_before']:+.2f}",
                before,
                after,
                f"{row['seconds']:.2f}",
                f"{row['gmacs']:.2f}",
                "" if row["toolchain"] is None else ", ".join(row["toolchain"]) or "no tool",
            )
        )
    widths = [max(map(cell_width, column)) for column in zip(*table, strict=True)]
    for name, *numbers, chain in table:
        cells = (f"{number:>{width}}" for number, width in zip(numbers, widths[1:-1], strict=True))
        print("  ".join((name + " " * (widths[0] - cell_width(name)), *cells, chain)).rstrip())
