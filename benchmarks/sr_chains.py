"""Noisy, JPEG-compressed, x4 smaller photographs: super-resolution alone against tools and then super-resolution.

``python -m benchmarks.sr_chains --images DIR --search-images DIR``. The fixed chain of each kind of input is the best
of a search on patches of ``--search-images``, by the PSNR of the small image; the agent looks at each photograph and
chooses its own tools. Then each super-resolver enlarges. PSNR is that of RGB, as 8 bits.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from agents.cli import OneLineParser, run_guarded
from agents.commands.arguments import positive_int
from agents.policies.heuristics import FixedChain, best_chains
from agents.restoration.restorer import Restorer, quality
from benchmarks.publishing import add_outputs, check_outputs, parse, publish
from benchmarks.sr_contest import (
    MISSING,
    Photos,
    Pixels,
    attempt,
    contestants,
    load_all,
    open_photos,
    parse_extra,
)
from restore_env.distortions.protocol import Levels, distort
from restore_env.images.tiling import to_pixels, to_tensor
from restore_env.metrics import psnr
from restore_env.toolbox import Tool, Toolbox, usable_device
from sr_models.training.degradations import SCALE, bicubic

PROGRAM, SECTION = "benchmarks.sr_chains", "sr-chains"
INPUTS = (
    Levels(noise_sigma=10, jpeg_quality=60),
    Levels(noise_sigma=20, jpeg_quality=40),
    Levels(noise_sigma=30, jpeg_quality=20),
)
"""What the small images have been through."""
STAGES_USED = ("gan",)
"""Of the super-resolvers: that of the toolbox."""
WAYS = ("alone", "fixed chain", "agent's chain")
"""What happens before the super-resolver."""
PATCH_SIZE = 63


@dataclass(frozen=True)
class Outcome:
    """Mean PSNR, dB, of one super-resolver on one kind of input, by what happened before it."""

    name: str
    psnr: Mapping[str, float] | None
    """By the name of the way; None: the super-resolver is not there, or fails."""


def named(levels: Levels) -> str:
    """An input in words."""
    return f"noise {levels.noise_sigma:g}, JPEG {levels.jpeg_quality}"


def degraded(photos: Photos, levels: Levels, seed: int) -> dict[str, Pixels]:
    """Photographs shrunk to a quarter, with noise and JPEG; those of one seed are always the same."""
    return {
        name: distort(target, levels, np.random.default_rng([seed, index]), SCALE)
        for index, (name, target) in enumerate(photos.items())
    }


def search(toolbox: Toolbox, photos: Photos, levels: Levels, patches: int, beam: int, seed: int) -> tuple[int, ...]:
    """The fixed chain of up to three tools that brings small patches nearest to clean ones.

    Args:
        toolbox: same-size tools.
        photos: to cut patches from, of 252x252 or more.
        levels: what the patches have been through.
        patches: how many.
        beam: prefixes that are kept; 1 is a greedy search.
        seed: of the patches.
    """
    rng = np.random.default_rng([seed, round(levels.noise_sigma), levels.jpeg_quality])
    pictures, size = list(photos.values()), SCALE * PATCH_SIZE
    inputs, targets = [], []
    for _ in range(patches):
        picture = pictures[rng.integers(len(pictures))]
        top, left = (int(rng.integers((side - size) // SCALE + 1)) * SCALE for side in picture.shape[:2])
        patch = np.ascontiguousarray(picture[top : top + size, left : left + size])
        inputs.append(to_tensor(distort(patch, levels, rng, SCALE)))
        targets.append(to_tensor(bicubic(patch)))
    before, after = (torch.cat(side).to(toolbox.device) for side in (inputs, targets))
    with torch.inference_mode():
        best = [chains[0] for chains in best_chains(toolbox, before, after, beam=beam).values()]
        scores = [float(psnr(chained(toolbox, chain, before), after).mean()) for chain in best]
    return best[int(np.argmax(scores))]


def chained(toolbox: Toolbox, chain: Sequence[int], images: Tensor) -> Tensor:
    """Apply tools one after the other to a batch; nothing is clipped between."""
    for action in chain:
        images = toolbox.run(action, images)
    return images


@torch.inference_mode()
def prepared(restorer: Restorer, toolbox: Toolbox, chain: Sequence[int], small: Pixels) -> dict[str, Tensor]:
    """What super-resolvers are given, by way: the input, the fixed chain's result, and the agent's."""
    image = to_tensor(small).to(toolbox.device)
    own = restorer.restore(small, keep_float=True).float_image
    assert own is not None
    return dict(zip(WAYS, (image, chained(toolbox, chain, image), to_tensor(own).to(toolbox.device)), strict=True))


@torch.inference_mode()
def outcome(tool: Tool, inputs: Mapping[str, Mapping[str, Tensor]], photos: Photos) -> dict[str, float]:
    """Mean PSNR of a super-resolver's results by way."""
    scores = {
        way: [quality(to_pixels(tool(inputs[name][way])), target) for name, target in photos.items()] for way in WAYS
    }
    return {way: float(np.mean(each)) for way, each in scores.items()}


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """PSNR by way, and the gains over super-resolution alone, as lines of Markdown."""
    lines = [f"| PSNR, dB | alone | {' | '.join(f'{way} | gain' for way in WAYS[1:])} |", f"|---|{'---:|' * 5}"]
    for each in outcomes:
        if each.psnr is None:
            lines.append(f"| {each.name} | {' | '.join([MISSING] * 5)} |")
            continue
        alone = each.psnr[WAYS[0]]
        cells = [f"{alone:.2f}"]
        for way in WAYS[1:]:
            cells += [f"{each.psnr[way]:.2f}", f"{each.psnr[way] - alone:+.2f}"]
        lines.append(f"| {each.name} | {' | '.join(cells)} |")
    return lines


def complain(text: str) -> None:
    """Say on the standard error what is missing."""
    print(f"{PROGRAM}: {text}", file=sys.stderr)


def run(arguments: argparse.Namespace) -> int:
    """Search, restore, enlarge, print."""
    check_outputs(arguments, SECTION)
    device = str(usable_device(arguments.device))
    restorer = Restorer(arguments.toolbox, arguments.policy, device)
    toolbox = Toolbox([tool for tool in restorer.toolbox if tool.scale == 1], restorer.device)
    photos = open_photos(arguments.images)
    size = SCALE * PATCH_SIZE
    to_search = {n: p for n, p in open_photos(arguments.search_images).items() if min(p.shape[:2]) >= size}
    if not to_search:
        raise ValueError(
            f"{arguments.search_images}: no photograph of {size}x{size} pixels or more to search chains on"
        )
    tools = load_all(contestants(arguments.peers, parse_extra(arguments.extra), device, STAGES_USED), complain)
    lines, record = [], {}
    for levels in INPUTS:
        chain = search(toolbox, to_search, levels, arguments.search_patches, arguments.beam, arguments.seed)
        words = FixedChain(chain, toolbox.stop).named(toolbox)
        small = degraded(photos, levels, arguments.seed)
        inputs = {name: prepared(restorer, toolbox, chain, small[name]) for name in photos}
        outcomes = [
            Outcome(
                name,
                None if tool is None else attempt(partial(outcome, tool, inputs, photos), f"{name}: failed", complain),
            )
            for name, tool in tools.items()
        ]
        lines += [f"**{named(levels)}**; fixed chain {words}", "", *table(outcomes), ""]
        record[named(levels)] = {"chain": words, "rows": [asdict(each) for each in outcomes]}
    text = "\n".join(lines).rstrip()
    publish(arguments, SECTION, text, {"inputs": record})
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--images", type=Path, required=True, help="folder of held-out photographs")
    parser.add_argument("--search-images", type=Path, required=True, help="other photographs, to search chains on")
    parser.add_argument("--toolbox", default="default", help="shipped name or folder")
    parser.add_argument("--policy", help="shipped name or file (default: the toolbox's own)")
    parser.add_argument("--peers", type=Path, help="folder of RFDN_AIM.pth and carn_m.pth")
    parser.add_argument("--extra", nargs="+", default=[], metavar="NAME=FILE", help="weights files, a further row each")
    parser.add_argument("--search-patches", type=positive_int, default=32)
    parser.add_argument("--beam", type=positive_int, default=8, help="chains prolonged per length; 1 is greedy")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    add_outputs(parser)
    parsed = parse(parser, arguments)
    return run_guarded(lambda: run(parsed), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
