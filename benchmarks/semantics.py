"""What the semantic prior does to SFT-Net: ``python -m benchmarks.semantics --images DIR``.

The crop of each photograph that is hardest to enlarge is restored under the prior's own maps, and under each of the
seven categories alone, swapped in; the table says how much the result changes and how much fine texture it has. Two
pictures, of one photograph: the crop under every prior (``--figure``), and the probability maps above the gamma and
beta maps that a layer makes of them (``--modulations``). Source: Wang et al., CVPR 2018, figures 3, 6 and 7.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from agents.cli import OneLineParser, run_guarded
from agents.commands.arguments import positive_int
from benchmarks.publishing import add_outputs, check_outputs, parse, publish
from benchmarks.sr_contest import Distance, Photos, Pixels, open_photos
from benchmarks.super_resolution import hardest_crop, open_distance
from restore_env.images.figures import write_figure
from restore_env.images.tiling import to_pixels, to_tensor
from restore_env.toolbox import bicubic_upscale, usable_device
from sr_models.generators.sft_net import one_category
from sr_models.prior.categories import BACKGROUND, CATEGORIES
from sr_models.super_resolver import SuperResolver, load_super_resolver
from sr_models.training.degradations import SCALE, bicubic

PROGRAM, SECTION = "benchmarks.semantics", "semantics"
OWN = "own maps"
SWAPPED = tuple(category for category in CATEGORIES if category.id != BACKGROUND)
"""The seven categories."""
CROP_SIZE = 128
MAP_COLOURS, MODULATION_COLOURS = "viridis", "coolwarm"


@dataclass(frozen=True)
class Patch:
    """A crop of a photograph, restored under several priors."""

    small: Tensor
    """The input, ``(1, 3, H, W)``."""
    target: Tensor
    """``(1, 3, 4H, 4W)``."""
    results: Mapping[str, Tensor]
    """``(1, 3, 4H, 4W)`` by the prior's name, clipped; the prior's own maps first."""


@dataclass(frozen=True)
class Row:
    """Means over the patches under one prior."""

    prior: str
    change: float
    """Root mean square of the difference from the result under the prior's own maps, grey levels of 255."""
    texture: float
    """Spread of what a Laplacian leaves of the result, over that of the photograph."""
    distance: float
    """Perceptual distance from the photograph."""


@torch.inference_mode()
def restore(resolver: SuperResolver, photo: Pixels, device: str) -> Patch:
    """Restore a photograph's hardest crop under the prior's own maps of the photograph, and under each category."""
    image = to_tensor(bicubic(photo)).to(device)
    rows, columns = hardest_crop(photo, to_pixels(bicubic_upscale(image)), CROP_SIZE)
    small = image[..., rows.start // SCALE : rows.stop // SCALE, columns.start // SCALE : columns.stop // SCALE]
    own = resolver.maps(image)
    assert own is not None
    maps = {OWN: own[..., rows, columns]} | {each.name: one_category(each.id, small) for each in SWAPPED}
    results = {name: resolver(small, prior).clamp(0, 1) for name, prior in maps.items()}
    return Patch(small, to_tensor(photo[rows, columns]).to(device), results)


def texture(images: Tensor) -> float:
    """The spread of what a Laplacian leaves of an image's grey: fine detail, and nothing of a smooth shade."""
    kernel = images.new_tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]).reshape(1, 1, 3, 3)
    return float(F.conv2d(images.mean(1, keepdim=True), kernel).std())


@torch.inference_mode()
def compare(patches: Sequence[Patch], distance: Distance) -> list[Row]:
    """What each prior makes of the patches."""
    rows = []
    for prior in patches[0].results:
        changes, textures, distances = [], [], []
        for patch in patches:
            result = patch.results[prior]
            changes.append(255 * float((result - patch.results[OWN]).square().mean().sqrt()))
            textures.append(texture(result) / max(texture(patch.target), 1e-6))
            distances.append(float(distance(result, patch.target)))
        rows.append(Row(prior, *(float(np.mean(each)) for each in (changes, textures, distances))))
    return rows


def table(rows: Sequence[Row]) -> list[str]:
    """The rows as lines of Markdown."""
    lines = [
        "| prior | change, grey levels | texture, of the photograph's | perceptual distance |",
        "|---|---:|---:|---:|",
    ]
    lines += [f"| {row.prior} | {row.change:.2f} | {row.texture:.2f} | {row.distance:.4f} |" for row in rows]
    return lines


def draw_priors(path: Path, patch: Patch) -> None:
    """Draw one patch under every prior, each with its difference from the result under the prior's own maps."""
    from matplotlib.figure import Figure

    small = to_pixels(F.interpolate(patch.small, scale_factor=SCALE, mode="nearest"))
    images = {"input": small, **{name: to_pixels(image) for name, image in patch.results.items()}}
    images["photograph"] = to_pixels(patch.target)
    own = patch.results[OWN]
    figure = Figure(figsize=(1.75 * len(images), 3.9), layout="constrained")
    axes = figure.subplots(2, len(images))
    bound = max(float((image - own).abs().mean(1).max()) for image in patch.results.values()) or 1.0
    shown: Any = None
    for column, (name, pixels) in enumerate(images.items()):
        top, bottom = axes[0, column], axes[1, column]
        top.imshow(pixels, interpolation="nearest")
        top.set_title(name, fontsize=9)
        for panel in (top, bottom):
            panel.set_axis_off()
        if name in patch.results and name != OWN:
            change = (patch.results[name] - own).abs().mean(1)[0].cpu() * 255
            shown = bottom.imshow(change.numpy(), cmap="magma", vmin=0, vmax=255 * bound)
    figure.colorbar(shown, ax=axes[1, :], label="change, grey levels", shrink=0.8)
    write_figure(path, figure)


@torch.inference_mode()
def draw_modulations(path: Path, resolver: SuperResolver, photo: Pixels, shown: int, device: str) -> None:
    """Draw the probability maps of a photograph, and gamma and beta of the layer where they vary most over it.

    From gamma and beta each channel's mean is taken: what is left is what the place decides.

    Args:
        path: PNG, PDF or SVG.
        resolver: SFT-Net with its prior.
        photo: the photograph.
        shown: how many channels, those that vary most.
        device: where all run.

    Raises:
        ValueError: the network's conditioning has no gamma and beta.
    """
    from matplotlib.figure import Figure

    image = to_tensor(bicubic(photo)).to(device)
    maps = resolver.maps(image)
    assert maps is not None
    network: Any = resolver.network
    layers = network.modulations(maps)
    number = max(range(len(layers)), key=lambda layer: float(sum(part.std((2, 3)).mean() for part in layers[layer])))
    gamma, beta = layers[number]
    channels = (gamma.std((2, 3)) + beta.std((2, 3)))[0].argsort(descending=True)[:shown].tolist()
    columns = 1 + max(len(CATEGORIES), len(channels))
    figure = Figure(figsize=(1.9 * columns, 4.4 * photo.shape[0] / photo.shape[1] + 1.6), layout="constrained")
    axes = figure.subplots(3, columns)
    for panel in axes.flat:
        panel.set_axis_off()
    axes[0, 0].imshow(photo)
    axes[0, 0].set_title("photograph", fontsize=9)
    probabilities: Any = None
    for category, panel in zip(CATEGORIES, axes[0, 1:], strict=False):
        probabilities = panel.imshow(maps[0, category.id].cpu().numpy(), cmap=MAP_COLOURS, vmin=0, vmax=1)
        panel.set_title(category.name, fontsize=9)
    figure.colorbar(probabilities, ax=axes[0, :], label="probability", shrink=0.9)
    for row, (name, values) in enumerate((("gamma", gamma), ("beta", beta)), start=1):
        values = values - values.mean((2, 3), keepdim=True)
        bound = float(values[0, channels].abs().max()) or 1.0
        axes[row, 0].text(
            0.5,
            0.5,
            f"{name} less its mean,\nlayer {number + 1} of {len(layers)}",
            ha="center",
            va="center",
            fontsize=9,
        )
        drawn: Any = None
        for channel, panel in zip(channels, axes[row, 1:], strict=False):
            pixels = values[0, channel].cpu().numpy()
            drawn = panel.imshow(pixels, cmap=MODULATION_COLOURS, vmin=-bound, vmax=bound)
            panel.set_title(f"channel {channel}", fontsize=8)
        figure.colorbar(drawn, ax=axes[row, :], label=name, shrink=0.9)
    write_figure(path, figure)


def chosen_photo(photos: Photos, name: str | None) -> Pixels:
    """The photograph of that name (without suffix), or the first.

    Raises:
        ValueError: there is none.
    """
    if name is None:
        return next(iter(photos.values()))
    if name not in photos:
        raise ValueError(f"--show {name}: no such photograph; there are {', '.join(photos)}")
    return photos[name]


def run(arguments: argparse.Namespace) -> int:
    """Restore under all priors, print, draw."""
    check_outputs(arguments, SECTION)
    device = str(usable_device(arguments.device))
    resolver = load_super_resolver(arguments.model, device, stage=arguments.stage)
    if not resolver.takes_maps:
        raise ValueError(f"{arguments.model}: this super-resolver takes no semantic maps; sft_gan does")
    photos = open_photos(arguments.images)
    shown = chosen_photo(photos, arguments.show)
    patches = [restore(resolver, photo, device) for photo in photos.values()]
    rows = compare(patches, open_distance(arguments.squeezenet, device))
    text = "\n".join(table(rows))
    drawings: list[tuple[Path | None, Callable[[Path], None]]] = [
        (arguments.figure, lambda path: draw_priors(path, restore(resolver, shown, device))),
        (arguments.modulations, lambda path: draw_modulations(path, resolver, shown, arguments.channels, device)),
    ]
    publish(arguments, SECTION, text, {"priors": [asdict(row) for row in rows]})
    for path, draw in drawings:
        if path is not None:
            draw(path)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--images", type=Path, required=True, help="folder of clean photographs")
    parser.add_argument("--model", default="sft_gan", help="shipped name or weights file (default sft_gan)")
    parser.add_argument("--stage", choices=("psnr", "gan"), default="gan", help="of a shipped one (default gan)")
    parser.add_argument("--show", metavar="NAME", help="photograph in the pictures (default: the first)")
    parser.add_argument("--channels", type=positive_int, default=8, help="of gamma and beta in the picture (default 8)")
    parser.add_argument("--squeezenet", type=Path, help="ImageNet weights (.npz) to see with (default: the prior's)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--figure", type=Path, help="draw the crop under every prior: PNG, PDF or SVG")
    parser.add_argument("--modulations", type=Path, help="draw gamma and beta next to the maps: PNG, PDF or SVG")
    add_outputs(parser)
    parsed = parse(parser, arguments)
    return run_guarded(lambda: run(parsed), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
