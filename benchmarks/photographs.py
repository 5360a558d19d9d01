"""Whole photographs, good and bad ones: ``python -m benchmarks.photographs [--images DIR]``.

An agent must not make a good photograph worse, and should clean noise as it comes. Each line is a distortion of
photographs: PSNR before and after, the mean and the worst change, and by how much a channel's mean has moved. Beside
it is OpenCV's non-local means, as strong as the noise.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

import cv2
import numpy as np

from agents.command_line import OneLineParser, non_negative_float, run_guarded
from agents.restoration import CAUTION
from agents.restoration.restorer import Restorer, quality
from benchmarks.report.publishing import add_outputs, check_outputs, markdown_table, parse, publish
from restore_env.distortions.photographic import Save, SensorNoise
from restore_env.distortions.protocol import jpeg, quantize
from restore_env.images.arrays import Float, Pixels, to_float
from restore_env.images.files import list_images
from restore_env.images.sources import EMBEDDED, ImageSource, embedded_paths, open_images

PROGRAM = "benchmarks.photographs"


def _noise(image: Pixels, sigma: float, size: float, channels: int, rng: np.random.Generator) -> Pixels:
    """Add noise of standard deviation ``sigma``, blurred by ``size`` pixels, the same in all channels or not."""
    shape = (*image.shape[:2], channels)
    field: Float = rng.standard_normal(shape, dtype=np.float32)
    if size:
        field = np.asarray(cv2.GaussianBlur(field, (0, 0), size), np.float32).reshape(shape)
    return quantize(to_float(image) + field / field.std() * np.float32(sigma / 255))


def _low_light(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Photograph in low light: sensor noise before demosaicing, and JPEG."""
    sensor = SensorNoise(shot=0.012, read=0.012, red=1.8, blue=1.6, demosaicing="edges")
    return quantize(Save("jpg", 92).apply(sensor.apply(to_float(image), rng), rng))


@dataclass(frozen=True)
class Case:
    """What happens to a photograph."""

    distort: Callable[[Pixels, np.random.Generator], Pixels]
    strength: float = 0.0
    """Of non-local means; 0: none."""


CASES: Mapping[str, Case] = MappingProxyType(
    {
        "saved, quality 95": Case(lambda image, rng: jpeg(image, 95)),
        "white noise, sigma 30": Case(lambda image, rng: _noise(image, 30, 0, 3, rng), 30),
        "correlated noise, sigma 20": Case(lambda image, rng: _noise(image, 20, 0.8, 3, rng), 20),
        "mono grain, sigma 30": Case(lambda image, rng: _noise(image, 30, 0.8, 1, rng), 30),
        "low light, demosaiced": Case(_low_light, 20),
        "JPEG, quality 5": Case(lambda image, rng: jpeg(image, 5)),
    }
)


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    case: str
    photographs: int
    before: float
    """Mean PSNR, dB."""
    after: float
    worst: float
    """Lowest change of a photograph, dB."""
    shift: float
    """Largest change of a channel's mean, grey levels of 255."""
    non_local_means: float | None
    """Mean PSNR of OpenCV's filter, dB."""


def measure(restorer: Restorer, source: ImageSource, name: str, seed: int) -> Line:
    """Distort and restore every photograph."""
    case, before, after, shifts, others = CASES[name], [], [], [], []
    for index in range(len(source)):
        target = source.pixels(index)
        distorted = case.distort(target, np.random.default_rng([seed, index]))
        restored = restorer.restore(distorted).image
        before.append(quality(distorted, target))
        after.append(quality(restored, target))
        shifts.append(np.abs(restored.mean((0, 1)) - distorted.mean((0, 1))).max())
        if case.strength:
            filtered = cv2.fastNlMeansDenoisingColored(distorted, None, case.strength * 0.6, case.strength * 0.6)
            others.append(quality(np.asarray(filtered, np.uint8), target))
    changes = np.array(after) - np.array(before)
    means = (float(np.mean(before)), float(np.mean(after)), float(changes.min()), float(max(shifts)))
    return Line(name, len(source), *means, float(np.mean(others)) if others else None)


def table(lines: Sequence[Line]) -> list[str]:
    """The lines as Markdown."""
    heads = ["photographs", "number", "before, dB", "after, dB", "mean change", "worst change", "shift of means"]
    rows = [
        [
            *(line.case, str(line.photographs), f"{line.before:.2f}", f"{line.after:.2f}"),
            *(f"{line.after - line.before:+.2f}", f"{line.worst:+.2f}", f"{line.shift:.2f}"),
            "" if line.non_local_means is None else f"{line.non_local_means:.2f}",
        ]
        for line in lines
    ]
    return markdown_table([*heads, "non-local means, dB"], rows)


def run(arguments: argparse.Namespace) -> int:
    """Measure all cases and publish the table."""
    check_outputs(arguments)
    restorer = Restorer(arguments.toolbox, arguments.policy, caution=arguments.caution)
    source = open_photographs(arguments)
    lines = []
    for number, name in enumerate(CASES, 1):
        print(f"[{number}/{len(CASES)}] {name}", file=sys.stderr, flush=True)
        lines.append(measure(restorer, source, name, arguments.seed))
    publish(arguments, "\n".join(table(lines)), {"lines": [asdict(line) for line in lines]})
    return 0


def open_photographs(arguments: argparse.Namespace) -> ImageSource:
    """Open the clean photographs of the arguments of :func:`add_photographs`, after the embedded ones.

    Raises:
        ImageError: one cannot be used.
    """
    files = [list_images(path) if path.is_dir() else [path] for path in arguments.images]
    source = open_images([*embedded_paths(), *(file for part in files for file in part)], min_size=63)
    assert isinstance(source, ImageSource)
    return source


def add_photographs(parser: argparse.ArgumentParser) -> None:
    """Add the options of what restores which photographs."""
    parser.add_argument(
        "--images",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE|DIR",
        help=f"clean photographs, files or folders, beside the {len(EMBEDDED)} embedded ones",
    )
    parser.add_argument("--toolbox", default="default", help="shipped name or folder (default %(default)s)")
    parser.add_argument("--policy", help="shipped name or file (default: the toolbox's own)")
    parser.add_argument("--caution", type=non_negative_float, default=CAUTION, help="dB (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__)
    add_photographs(parser)
    add_outputs(parser)
    parsed = parse(parser, arguments)
    return run_guarded(lambda: run(parsed), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
