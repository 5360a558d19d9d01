"""``imagerestore levels``: build level sets, pack them into a file, and say what is in them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from agents.command_line import positive_int, progress_bar

LOG_SECONDS = 60.0
"""Seconds between two lines of progress where there is no terminal."""


def register(commands: Any) -> None:
    """Add ``levels build``, ``levels pack`` and ``levels show``."""
    parser = commands.add_parser("levels", help="level sets: starts whose transitions are computed once")
    kinds = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    build = kinds.add_parser(
        "build",
        help="draw levels and run every chain of tools on each",
        description="Draws levels (photograph, place, distortion) and runs every chain of at most DEPTH tools on each."
        " Interrupted, the same command goes on where it was. Play them with gym.make('ImageRestore-v0', levels=DIR).",
    )
    build.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    build.add_argument("--count", type=positive_int, required=True, metavar="N", help="number of levels")
    build.add_argument("--images", metavar="DIR", help="folder of photographs (default: the embedded ones)")
    build.add_argument("--severity", default="mixed", help="distortions (default: %(default)s)")
    build.add_argument("--depth", type=int, default=2, metavar="D", help="length of the chains (default: %(default)s)")
    build.add_argument("--toolbox", metavar="NAME|DIR", help="shipped name, or a folder (default: the environment's)")
    build.add_argument("--upscale", nargs="+", type=positive_int, metavar="X", help="factors (default: the toolbox's)")
    build.add_argument("--reward", default="psnr", help="metric: psnr, ssim or perceptual (default: %(default)s)")
    build.add_argument("--backend", help="what runs the tools: torch, eager or ncnn (default: the toolbox's)")
    build.add_argument("--split", choices=("all", "train", "test"), default="all", help="which of the photographs")
    build.add_argument("--pixels", action="store_true", help="store the observed patches, too (12 kB each)")
    build.add_argument("--no-last", action="store_true", help="do not store what is observed after the last step")
    build.add_argument("--beyond", action="store_true", help="store a step more, after each level's best chain")
    build.add_argument("--seed", type=int, default=0, help="of the levels (default: %(default)s)")
    build.set_defaults(run=build_set)
    pack = kinds.add_parser("pack", help="write a level set as one compressed file")
    pack.add_argument("levels", type=Path, metavar="DIR", help="a level set")
    pack.add_argument("file", type=Path, metavar="FILE", help="file to write")
    pack.set_defaults(run=pack_set)
    show = kinds.add_parser("show", help="what a level set holds, and its best chains")
    show.add_argument("levels", type=Path, metavar="DIR|FILE", help="a level set")
    show.set_defaults(run=show_set)


def build_set(arguments: argparse.Namespace) -> int:
    """Run ``imagerestore levels build``."""
    from restore_env import Task
    from restore_env.levels.building import build_levels, resplit

    upscale = None if arguments.upscale is None else tuple(arguments.upscale)
    given = {name: getattr(arguments, name) for name in ("images", "severity", "toolbox", "reward", "backend")}
    task = resplit(Task(**given, upscale=upscale), arguments.split)
    with progress_bar("levels", LOG_SECONDS) as show:
        build_levels(
            task,
            arguments.out,
            count=arguments.count,
            depth=arguments.depth,
            seed=arguments.seed,
            pixels=arguments.pixels,
            last_observed=not arguments.no_last,
            beyond=arguments.beyond,
            report=lambda done, total: show(f"{done} of {total}", done / total),
        )
    return show_set(argparse.Namespace(levels=arguments.out))


def pack_set(arguments: argparse.Namespace) -> int:
    """Run ``imagerestore levels pack``."""
    from restore_env.levels.store import open_levels

    open_levels(arguments.levels).pack(arguments.file)
    print(f"{arguments.file}: {arguments.file.stat().st_size / 1e6:.1f} MB")
    return 0


def show_set(arguments: argparse.Namespace) -> int:
    """Run ``imagerestore levels show``."""
    from restore_env.levels.optima import optima
    from restore_env.levels.store import open_levels

    levels = open_levels(arguments.levels)
    manifest, tools = levels.manifest, levels.manifest.tools
    best = optima(levels, manifest.depth)
    chain = " -> ".join(tools[action] for action in best.constant_chain) or "stop"
    unit = " dB" if manifest.reward == "psnr" else ""
    print(
        f"{arguments.levels}: {manifest.count} levels of {len(manifest.photographs)} photographs, {manifest.severity},"
        f" chains of {manifest.depth} of {len(tools)} tools"
    )
    print(f"best constant chain {chain}: {best.constant_return.mean():+.3f}{unit}")
    print(f"best chain of each level: {best.best_return.mean():+.3f}{unit}")
    return 0
