"""Training of single tools: each on patches with its own distortion, parents first."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from restore_env.distortions.mixed import Distortion, draw_distortion
from restore_env.distortions.protocol import Levels, check_severity
from restore_env.images.sources import ImageSource
from restore_env.patches import PatchSampler
from restore_env.toolbox import usable_device
from tools_zoo.catalog import SPECS, TOOLS, ToolSpec, tools_of, training_order
from tools_zoo.networks import NETWORKS, last_layer, zeroed
from tools_zoo.toolboxes import ToolWeights, passes, read_tool, read_tools, tool_network, toolbox_folder, update_toolbox
from tools_zoo.training.cards import write_card
from tools_zoo.training.distributed import by_first
from tools_zoo.training.losses import LOSSES, restoring
from tools_zoo.training.runs import Validation, split_images
from tools_zoo.training.settings import RestorationTraining, option
from tools_zoo.training.trainer import Report, TrainingResult, digest, train_network

SLIGHT_NOISE = (0.0, 10.0)
"""Sigma of 255 of the noise that may accompany a blur or JPEG tool's distortion."""
SLIGHT_JPEG = (60.0, 100.0)
"""Quality of the JPEG that may accompany a blur or noise tool's distortion."""
MOST_DRAWS = 10_000
"""Distortions that are drawn to find one for a tool."""
VALIDATION_PATCHES, VALIDATION_SECONDS = 48, 5.0


@dataclass(frozen=True, kw_only=True)
class ToolTraining(RestorationTraining):
    """The settings of ``imagerestore train tools``. Minutes are for all tools together, steps for each."""

    tools: tuple[str, ...] = option(("all",), 'names of tools, or "all"', metavar="NAME", recorded=False)
    init: str | None = option(
        None, "toolbox whose weights training starts from: shipped name or folder", recorded=False
    )
    slight_share: float = option(0.5, "share of the patches that get slight noise and JPEG, too", values="share")
    mixed_share: float = option(
        0.0, "share of the patches with distortions of --mixture whose strongest part is the tool's", values="share"
    )
    mixture: str = option("any", 'severity of those, such as "any" or "mixed"', parse=check_severity)
    shapes: str = option("published", "networks", choices=("published", "hourglass"))

    @property
    def order(self) -> tuple[ToolSpec, ...]:
        """The tools, parents first; raise ``ValueError`` for an unknown one."""
        return tuple(training_order(tuple(SPECS) if "all" in self.tools else self.tools))


def draw_band(spec: ToolSpec, rng: np.random.Generator, slight: bool = False) -> Levels:
    """Draw the levels of a tool's own distortion; with ``slight``, add slight noise and JPEG, as chains leave them."""
    strength = float(rng.uniform(spec.low, spec.high))
    noise = float(rng.uniform(*SLIGHT_NOISE)) if slight else 0.0
    quality = round(rng.uniform(*SLIGHT_JPEG)) if slight else 0
    if spec.kind == "blur":
        return Levels(strength, noise, quality)
    if spec.kind == "noise":
        return Levels(0.0, strength, quality)
    return Levels(0.0, noise, round(strength))


def draw_strongest(spec: ToolSpec, severity: str, rng: np.random.Generator) -> Distortion:
    """Draw a distortion whose strongest part is of the tool's kind and in its band.

    So the tools share the distortions of a severity among themselves.

    Raises:
        ValueError: the severity hardly ever has one.
    """
    for _ in range(MOST_DRAWS):
        drawn = draw_distortion(severity, rng)
        if tools_of(drawn.strengths)[:1] == [spec]:
            return drawn
    raise ValueError(f"mixture {severity!r} has no distortion for {spec.name}: choose another, such as 'mixed'")


def train_tools(
    settings: ToolTraining, source: ImageSource, report: Report = lambda _: None
) -> dict[str, TrainingResult]:
    """Train the tools one after the other, parents first, and write them into ``settings.out`` as they are done.

    A tool that has used up its budget in ``out`` is not trained again; one that was interrupted goes on. Minutes are
    shared among the tools that are left by their networks' computation.

    Returns:
        For each tool what training gave.
    """
    usable_device(settings.device)
    results: dict[str, TrainingResult] = {}
    minutes_left = settings.budget.minutes
    for position, spec in enumerate(settings.order):
        if minutes_left is not None:
            costs = [NETWORKS[s.network(settings.shapes)]().macs_per_pixel for s in settings.order[position:]]
            settings = replace(settings, minutes=max(minutes_left, 0.05) * costs[0] / sum(costs))
        results[spec.name] = result = _train_tool(settings, spec, source, report)
        if minutes_left is not None:
            minutes_left -= result.seconds / 60
        by_first(partial(write_tools_card, settings.out))
    return results


def _train_tool(settings: ToolTraining, spec: ToolSpec, source: ImageSource, report: Report) -> TrainingResult:
    row, shape = TOOLS.index(spec), spec.network(settings.shapes)
    path = _start_path(settings, spec)
    start = None if path is None else read_tool(path, shape)
    own = path is not None and path.parent != settings.out
    torch.manual_seed(settings.seed)
    if start is None:
        network = NETWORKS[shape]()
        zeroed(last_layer(network))
    else:
        network = tool_network(start)

    def draw(rng: np.random.Generator) -> Distortion:
        if rng.random() < settings.mixed_share:
            return draw_strongest(spec, settings.mixture, rng)
        return draw_band(spec, rng, slight=bool(rng.random() < settings.slight_share))

    kept, held_out = split_images(len(source))
    sampler = PatchSampler(source, kept, settings.patch_size, draw, device=settings.draw_device)
    held = PatchSampler(source, held_out, settings.patch_size, lambda rng: draw_band(spec, rng))
    pairs = held.batch(np.random.default_rng([settings.seed, row, 1]), VALIDATION_PATCHES)
    result, recipe = train_network(
        settings,
        spec.name,
        network,
        lambda step: sampler.batch(np.random.default_rng([settings.seed, row, 0, step]), settings.batch_size),
        restoring(network, LOSSES[settings.loss], settings.device),
        Validation.of_network(network, pairs, settings.device, VALIDATION_SECONDS),
        identity={
            "network": shape,
            "images": len(kept),
            "held_out": set(kept).isdisjoint(held_out),
            "started_from": "random weights" if start is None else "itself" if own else start.name,
            **({"start": digest(network)} if own else {}),
        },
        report=report,
    )
    earlier = passes(start.recipe) if own and start is not None else []
    weights = ToolWeights(spec.name, shape, result.state, recipe | {"earlier": earlier})
    by_first(lambda: update_toolbox(settings.out, [weights]))
    return result


def write_tools_card(folder: Path) -> None:
    """Write the model card ``folder/README.md``: use, data, recipe of each tool."""
    tools = read_tools(folder)
    together = any(recipe.get("joint") for tool in tools for recipe in passes(tool.recipe))
    lines = ["| tool | network | steps | minutes | precision | input, dB | output, dB |", "|---" * 7 + "|"]
    for tool in tools:
        recipes = passes(tool.recipe)
        steps = " + ".join(f"{recipe.get('steps')}{' joint' * bool(recipe.get('joint'))}" for recipe in recipes)
        minutes = f"{sum(float(recipe.get('seconds') or 0) for recipe in recipes) / 60:.1f}"
        measured = ["", ""] if together else [tool.recipe.get("psnr_input"), tool.recipe.get("psnr_output")]
        cells = [tool.name, tool.network, steps, minutes, tool.recipe.get("precision"), *measured]
        lines.append(f"| {' | '.join(str(cell) for cell in cells)} |")
    numbered = [(number, recipe) for tool in tools for number, recipe in enumerate(passes(tool.recipe))]
    numbered.sort(key=lambda one: (one[0], bool(one[1].get("joint"))))
    recipes = [recipe for _, recipe in numbered if recipe.get("command")]
    commands = dict.fromkeys(
        f"{recipe['command']}  # {recipe.get('version')}, {recipe.get('images')} training images,"
        f" {recipe.get('optimizer', 'adam')}, {recipe.get('loss', 'mse')}"  # of the shipped ones the first name neither
        for recipe in recipes
    )
    fair = all(tool.recipe.get("held_out") for tool in tools)
    held_out = ", from photographs that were not trained on" if fair else ""
    joint = """ Tools with joint steps were then trained together on the images of
toolchains (`tools_zoo/training/joint.py`; Yu et al., CVPR 2018, section 3.3); their steps and minutes are those of all
tools together."""
    text = f"""# A toolbox of {len(tools)} restoration tools

## Use
Small CNNs that each remove one distortion of one strength (`tools_zoo/catalog.py`) from 8-bit RGB scaled to [0, 1].
Load with `tools_zoo.load_toolbox`.

## Data
Patches of clean photographs at 1, 2/3 and 1/3 of their size, with the tool's own distortion; a share of them with
slight noise (sigma 0 to 10 of 255) and JPEG (quality 60 to 100), too, or with a mixture of distortions.
The licence of the weights follows that of the photographs.

## Recipe
Each tool was trained on its own; weights are averaged exponentially.{joint * together}
Input and output: PSNR of {VALIDATION_PATCHES} validation patches with the tool's own distortion alone{held_out}.

{chr(10).join(lines)}

```
{chr(10).join(commands)}
```

## Limits
Distortions of other kinds, or stronger than those of `tools_zoo/catalog.py`, were not trained on.
"""
    write_card(folder / "README.md", text)


def _start_path(settings: ToolTraining, spec: ToolSpec) -> Path | None:
    """The file to start from: the tool itself in ``init``, or the nearest ancestor with its network in ``out``."""
    if settings.init is not None and (own := toolbox_folder(settings.init) / f"{spec.name}.safetensors").exists():
        return own
    parent = spec.parent
    while parent is not None:
        path = settings.out / f"{parent}.safetensors"
        if path.exists() and SPECS[parent].size == spec.size:
            return path
        parent = SPECS[parent].parent
    return None
