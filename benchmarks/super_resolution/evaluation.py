"""Super-resolvers on the same photographs: quality and speed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from benchmarks.baselines.complexity import parameter_count
from benchmarks.super_resolution.peers import PEERS, load_peer
from restore_env.images.arrays import Pixels
from restore_env.images.sources import ImageSource, open_images, short_names
from restore_env.images.tiling import to_pixels, to_tensor
from restore_env.metrics import luma, psnr, ssim
from restore_env.toolbox import BICUBIC_X4, FunctionTool, Tool
from sr_models.super_resolver import STAGES, SUPER_RESOLVERS, load_super_resolver
from sr_models.training.blind_distortion import SCALE, bicubic

Result = TypeVar("Result")
Photos = Mapping[str, Pixels]
"""Clean photographs by name, their sides multiples of 4."""
Distance = Callable[[Tensor, Tensor], Tensor]
"""Perceptual distance of two batches."""

BICUBIC, REFERENCE = "bicubic", "RFDN"
CROP = 4
"""Pixels at the borders that do not count."""
SIZES = (63, 512)
"""Sides of the inputs that speed is measured on."""
MISSING = "not there"
MISTAKES = (ValueError, OSError, RuntimeError, ImportError, MemoryError)
"""Errors that leave out one network and no other."""


@dataclass(frozen=True)
class Network:
    """One row of the table, to be loaded."""

    name: str
    model: str
    """Rows of one model have one architecture: speed is measured once."""
    load: Callable[[], Tool]


@dataclass(frozen=True)
class Scores:
    """Means over the photographs of a set."""

    psnr: float
    """dB, on Y."""
    ssim: float
    """On Y."""
    distance: float
    """Perceptual, lower is better."""


def networks_of(peers: Path | None, extra: Mapping[str, Path], device: str) -> list[Network]:
    """The networks that are compared: bicubic, the peers, every shipped super-resolver at every stage, then ``extra``.

    Args:
        peers: folder of the peers' weights; None: they are left out.
        extra: weights files, as training writes them, by row name.
        device: where all run.
    """
    entries = [Network(BICUBIC, BICUBIC, lambda: BICUBIC_X4)]
    entries += [Network(name, name, partial(_peer, name, peers, device)) for name in PEERS]
    for resolver in SUPER_RESOLVERS:
        entries += [
            Network(f"{resolver}, {stage}", resolver, partial(load_super_resolver, resolver, device, stage=stage))
            for stage in STAGES
        ]
    entries += [Network(name, name, partial(load_super_resolver, path, device)) for name, path in extra.items()]
    return entries


def _peer(name: str, folder: Path | None, device: str) -> Tool:
    if folder is None:
        raise ValueError(f"no folder of the peers' weights was given, so {name} is left out")
    return load_peer(name, folder).to(torch.device(device))


def parse_weights(texts: Iterable[str]) -> dict[str, Path]:
    """Weights files from ``NAME=FILE``.

    Raises:
        ValueError: not of that form, or two of one name.
    """
    files: dict[str, Path] = {}
    for text in texts:
        name, separator, file = text.partition("=")
        if not (name.strip() and separator and file) or name in files:
            raise ValueError(f"{text!r}: expected NAME=FILE, each name once")
        files[name] = Path(file)
    return files


def load_all(entries: Iterable[Network], complain: Callable[[str], None]) -> dict[str, Tool | None]:
    """Every network's tool by its name; None for one that cannot be loaded, with a line to ``complain``."""
    return {entry.name: attempt(entry.load, f"{entry.name}: {MISSING}", complain) for entry in entries}


def attempt(act: Callable[[], Result], what: str, complain: Callable[[str], None]) -> Result | None:
    """What ``act`` returns; if it fails None, with a line to ``complain`` that begins with ``what``."""
    try:
        return act()
    except MISTAKES as error:
        complain(f"{what}: {' '.join(str(error).split())}")
        return None


def parameters(tool: Tool) -> int:
    """Number of parameters, those of the semantic prior included where one is needed."""
    module = tool.function if isinstance(tool, FunctionTool) else tool
    return parameter_count(module)


def open_photos(folder: Path) -> dict[str, Pixels]:
    """The photographs of a folder or file by name, cut to multiples of 4 at the right and the bottom."""
    source = open_images(folder, min_size=SCALE * 16)
    if not isinstance(source, ImageSource):
        raise ValueError("super-resolvers are measured on clean photographs, not on pairs")
    photos = {}
    for index, name in enumerate(short_names([source.identity(index) for index in range(len(source))])):
        pixels = source.pixels(index)
        height, width = (side // SCALE * SCALE for side in pixels.shape[:2])
        photos[name] = np.ascontiguousarray(pixels[:height, :width])
    return photos


@torch.inference_mode()
def upscaled(tool: Tool, small: Pixels, device: str = "cpu") -> Pixels:
    """A tool's output for an image, as it would be saved."""
    return to_pixels(tool(to_tensor(small).to(device)))


@torch.inference_mode()
def score(result: Pixels, target: Pixels, distance: Distance, device: str = "cpu") -> Scores:
    """Compare one result with its target: PSNR and SSIM on Y, 4 pixels cropped, and the perceptual distance."""
    images, targets = (to_tensor(side)[..., CROP:-CROP, CROP:-CROP].to(device) for side in (result, target))
    on_y = luma(images), luma(targets)
    return Scores(float(psnr(*on_y)), float(ssim(*on_y)), float(distance(images, targets)))


def mean_scores(scores: Sequence[Scores]) -> Scores:
    """The means of photographs' scores."""
    columns = ([getattr(each, field) for each in scores] for field in ("psnr", "ssim", "distance"))
    return Scores(*(float(np.mean(column)) for column in columns))


def measure(
    tools: Mapping[str, Tool | None],
    photos: Photos,
    distance: Distance,
    device: str,
    complain: Callable[[str], None],
) -> dict[str, Scores | None]:
    """Mean scores of every tool on bicubic x4 inputs; None for missing tools and those that fail.

    Args:
        tools: as :func:`load_all` gives them.
        photos: the targets.
        distance: perceptual distance, on the device.
        device: where all run.
        complain: called with the reason why a tool failed.
    """
    inputs = {name: bicubic(target) for name, target in photos.items()}

    def mean(tool: Tool) -> Scores:
        return mean_scores([score(upscaled(tool, inputs[p], device), photos[p], distance, device) for p in photos])

    return {
        name: None if tool is None else attempt(partial(mean, tool), f"{name}: failed", complain)
        for name, tool in tools.items()
    }


def measure_speed(
    tools: Mapping[str, Tool], rounds: int, device: str, sizes: Sequence[int] = SIZES
) -> dict[str, dict[int, float]]:
    """Milliseconds per image of each tool and size: the median of rounds of all tools in turn.

    One more round comes first and does not count.
    """
    generator = torch.Generator().manual_seed(0)
    inputs = {size: torch.rand(1, 3, size, size, generator=generator).to(device) for size in sizes}
    seconds: dict[str, dict[int, list[float]]] = {name: {size: [] for size in sizes} for name in tools}
    for turn in range(rounds + 1):
        for name, size, taken in _turns(tools, inputs):
            if turn:
                seconds[name][size].append(taken)
    return {name: {size: 1e3 * float(np.median(each[size])) for size in sizes} for name, each in seconds.items()}


@torch.inference_mode()
def _turns(tools: Mapping[str, Tool], inputs: Mapping[int, Tensor]) -> Iterator[tuple[str, int, float]]:
    for size, image in inputs.items():
        for name, tool in tools.items():
            began = time.perf_counter()
            tool(image)
            if image.is_cuda:
                torch.cuda.synchronize(image.device)
            yield name, size, time.perf_counter() - began
