"""``imagerestore demo``: distort a photograph, restore it, and show the gain of each tool."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

PICTURES = ("input", "restored", "target", "chain")
TILE = 240
"""Side of the centre crop in the figure, pixels."""


def register(commands: Any) -> None:
    """Add ``demo``."""
    parser = commands.add_parser("demo", help="distort a photograph, restore it, and show the gain")
    parser.add_argument("--photo", type=Path, help="a clean photograph (default: one that comes with scikit-image)")
    parser.add_argument("--severity", choices=("mild", "moderate", "severe"), default="moderate")
    parser.add_argument("--seed", type=int, default=11, help="of the distortion (default 11)")
    parser.add_argument("--toolbox", default="default", help="shipped name or folder (default: default)")
    parser.add_argument("--policy", help="shipped name or file (default: the toolbox's own)")
    parser.add_argument("-o", "--out", type=Path, default=Path("demo"), help="folder for the pictures (default: demo)")
    parser.set_defaults(run=demo)


def demo(arguments: argparse.Namespace) -> int:
    """Run ``imagerestore demo``."""
    import numpy as np

    from agents.restoration.explanation import stage_captions
    from agents.restoration.files import check_output, identities
    from agents.restoration.restorer import Restorer
    from restore_env.distortions.protocol import distort, draw_levels
    from restore_env.episodes.rendering import Panel, panel_row
    from restore_env.images.decoding import Photo, read_image
    from restore_env.images.encoding import write_image
    from restore_env.images.sources import embedded_paths

    pictures = {name: arguments.out / f"{name}.png" for name in PICTURES}
    for picture in pictures.values():
        check_output(picture, identities([arguments.photo]), force=True)
    path = arguments.photo or next(path for path in embedded_paths() if path.stem == "coffee")
    target = read_image(path).pixels
    rng = np.random.default_rng(arguments.seed)
    levels = draw_levels(arguments.severity, rng)
    distorted = distort(target, levels, rng)
    result = Restorer(arguments.toolbox, arguments.policy).restore(distorted, target, keep_stages=True)
    captions = stage_captions(result, ["input", *result.toolchain])
    top, left = ((size - TILE) // 2 if size > TILE else 0 for size in target.shape[:2])
    middle = np.s_[top : top + TILE, left : left + TILE]
    panels = [Panel(stage.image[middle], caption) for stage, caption in zip(result.stages, captions, strict=True)]
    figure = panel_row([*panels, Panel(target[middle], "target")], tile=TILE)

    arguments.out.mkdir(parents=True, exist_ok=True)
    for picture, pixels in zip(pictures.values(), (distorted, result.image, target, figure), strict=True):
        write_image(picture, Photo(pixels))
    print(
        f"{path.name}, blurred (sigma {levels.blur_sigma:.2f} px), noisy (sigma {levels.noise_sigma:.1f} of 255)"
        f" and compressed (JPEG quality {levels.jpeg_quality})"
    )
    print(f"chain: {' -> '.join(result.toolchain) or 'none'}")
    for caption in captions:
        print("  " + caption.replace("\n", ": "))
    assert result.psnr_before is not None
    assert result.psnr_after is not None
    gain = result.psnr_after - result.psnr_before
    print(f"gain: {gain:+.2f} dB in {result.seconds:.1f} s; pictures in {arguments.out}/")
    return 0
