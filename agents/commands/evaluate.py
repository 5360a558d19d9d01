"""``imagerestore evaluate``: PSNR and SSIM before and after restoration, over two folders of paired images."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.commands.restore import add_restorer, open_restorer, progress_bar

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
        "--scale", type=int, choices=(1, 4), help="refuse pairs of another scale (default: each pair's own)"
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
    mean = {key: _mean([row[key] for row in rows]) for key in MEASURED}
    if arguments.json:
        print(json.dumps({"mean": mean, "images": rows}, indent=2))
    else:
        print(as_table(mean, rows))
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
        ssims = [ssim_in_tiles(pixels, clean.pixels) for pixels in (before, result.image)]
    return {
        "name": name,
        "psnr_before": result.psnr_before,
        "psnr_after": result.psnr_after,
        "ssim_before": ssims[0],
        "ssim_after": ssims[1],
        "seconds": result.seconds,
        "gmacs": result.gmacs,
        "scale": scale,
        "toolchain": list(result.toolchain),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean of the values that are not None; None without any."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def as_table(mean: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    """Rows and their mean in aligned columns."""
    lines = [("image", "PSNR", "after", "gain", "SSIM", "after", "seconds", "GMACs", "toolchain")]
    lines += [_cells(row["name"], row, ", ".join(row["toolchain"]) or "no tool") for row in rows]
    lines.append(_cells(f"mean of {len(rows)}", mean, ""))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in (0, len(line) - 1) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _cells(name: str, row: dict[str, Any], chain: str) -> tuple[str, str, str, str, str, str, str, str, str]:
    ssims = ["-" if row[key] is None else f"{row[key]:.4f}" for key in ("ssim_before", "ssim_after")]
    return (
        " ".join(name.split()),
        f"{row['psnr_before']:.2f}",
        f"{row['psnr_after']:.2f}",
        f"{row['psnr_after'] - row['psnr_before']:+.2f}",
        ssims[0],
        ssims[1],
        f"{row['seconds']:.2f}",
        f"{row['gmacs']:.2f}",
        chain,
    )
