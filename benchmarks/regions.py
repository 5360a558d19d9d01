"""Regions of photographs: ``python -m benchmarks.regions [--images DIR]``.

Each line is a distortion of whole photographs, at first composites, whose distortion varies in space, then uniform
ones: PSNR before, with one chain for all tiles, and with a chain for each region; how much more the latter gain, in the
mean and at worst, the time they take, and the share of the photographs that were divided.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType

import numpy as np

from agents.command_line import OneLineParser, run_guarded
from agents.restoration.restorer import Restorer
from benchmarks.photographs import add_photographs, open_photographs
from benchmarks.report.publishing import add_outputs, check_outputs, markdown_table, parse, publish
from restore_env.distortions.mixed import Composite, Distortion, draw_composite, draw_distortion
from restore_env.distortions.photographic import Photographic
from restore_env.distortions.protocol import Levels
from restore_env.images.sources import ImageSource

PROGRAM = "benchmarks.regions"
CLEAN, NOISY = Photographic("clean"), Levels(noise_sigma=30)
BLURRED, COMPRESSED = Levels(blur_sigma=2), Levels(jpeg_quality=15)


def _parts(*rows: tuple[Distortion, ...]) -> Composite:
    """Parts of equal size with hard borders."""
    return Composite(rows, 0.5, 0.5)


CASES: Mapping[str, Callable[[np.random.Generator], Distortion]] = MappingProxyType(
    {
        "clean, noisy": lambda rng: _parts((CLEAN, NOISY)),
        "blurred, compressed": lambda rng: _parts((BLURRED, COMPRESSED)),
        "four quadrants": lambda rng: _parts((CLEAN, NOISY), (BLURRED, COMPRESSED)),
        "drawn composites": draw_composite,
        "noise, sigma 30": lambda rng: NOISY,
        "blur, sigma 2": lambda rng: BLURRED,
        "JPEG, quality 15": lambda rng: COMPRESSED,
        "clean": lambda rng: CLEAN,
        "drawn, uniform": lambda rng: draw_distortion("mixed", rng),
    }
)
"""By name, how the distortion of a photograph is drawn; halves are side by side."""


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    case: str
    photographs: int
    before: float
    """Mean PSNR, dB."""
    one_chain: float
    regions: float
    worst: float
    """Lowest difference of a photograph, regions minus one chain, dB."""
    time: float
    """Of all photographs with regions, times that with one chain."""
    divided: float
    """Share of the photographs that had several chains."""


def measure(one_chain: Restorer, regions: Restorer, source: ImageSource, name: str, seed: int) -> Line:
    """Distort every photograph and restore it both ways."""
    psnrs, seconds, divided = [], np.zeros(2), 0
    for index in range(len(source)):
        target, rng = source.pixels(index), np.random.default_rng([seed, index])
        distorted = CASES[name](rng).patch(target, (0, 0, *target.shape[:2]), rng)
        results = [restorer.restore(distorted, target) for restorer in (one_chain, regions)]
        psnrs.append([results[0].psnr_before, *(result.psnr_after for result in results)])
        seconds += [result.seconds for result in results]
        divided += len(results[1].regions) > 1
    before, one, several = np.array(psnrs, dtype=float).T
    means = (float(before.mean()), float(one.mean()), float(several.mean()), float((several - one).min()))
    return Line(name, len(source), *means, float(seconds[1] / seconds[0]), divided / len(source))


def table(lines: Sequence[Line]) -> list[str]:
    """The lines as Markdown."""
    heads = ["photographs", "number", "before, dB", "one chain, dB", "regions, dB", "difference", "worst difference"]
    rows = [
        [
            *(line.case, str(line.photographs), f"{line.before:.2f}", f"{line.one_chain:.2f}", f"{line.regions:.2f}"),
            *(f"{line.regions - line.one_chain:+.2f}", f"{line.worst:+.2f}"),
            *(f"{line.time:.2f}", f"{line.divided:.0%}"),
        ]
        for line in lines
    ]
    return markdown_table([*heads, "time", "divided"], rows)


def run(arguments: argparse.Namespace) -> int:
    """Measure all cases and publish the table."""
    check_outputs(arguments)
    one_chain, regions = (
        Restorer(arguments.toolbox, arguments.policy, caution=arguments.caution, regions=each) for each in (False, True)
    )
    source = open_photographs(arguments)
    lines = []
    for number, name in enumerate(CASES, 1):
        print(f"[{number}/{len(CASES)}] {name}", file=sys.stderr, flush=True)
        lines.append(measure(one_chain, regions, source, name, arguments.seed))
    publish(arguments, "\n".join(table(lines)), {"lines": [asdict(line) for line in lines]})
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__)
    add_photographs(parser)
    add_outputs(parser)
    parsed = parse(parser, arguments)
    return run_guarded(lambda: run(parsed), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
