"""Training of one-network baselines on the data that the tools are trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, cast

import numpy as np
import torch

from benchmarks.baselines.catalog import CLEAN, Baseline, find_baseline
from benchmarks.baselines.same_size import BaselineNetwork, Cascade
from benchmarks.baselines.weights import BaselineWeights, Training, read_baseline, write_baseline
from benchmarks.report.publishing import markdown_table
from restore_env.distortions.mixed import draw_distortion
from restore_env.distortions.protocol import check_severity
from restore_env.images.sources import ImageSource
from restore_env.metrics import psnr
from restore_env.patches import PatchSampler
from restore_env.toolbox import bicubic_upscale, usable_device
from tools_zoo.networks import ToolNetwork, last_layer, zeroed
from tools_zoo.toolboxes import is_tool, passes, read_tool
from tools_zoo.training.cards import write_card
from tools_zoo.training.distributed import by_first
from tools_zoo.training.losses import LOSSES, as_tensor, restoring
from tools_zoo.training.runs import (
    INPUT,
    OUTPUT,
    Validation,
    split_images,
    validate,
)
from tools_zoo.training.settings import RestorationTraining, option
from tools_zoo.training.trainer import Report, digest, train_network

VALIDATION_PATCHES, VALIDATION_SECONDS = 192, 15.0
CARD = f"""# One-network baselines

## Use
Single networks that toolchains are compared with (`python -m benchmarks.compare`), for 8-bit RGB scaled to [0, 1]; the
networks are rows of `benchmarks/baselines/catalog.py`.

## Data
Patches of clean photographs at 1, 2/3 and 1/3 of their size with mixed distortions; x4 networks: bicubically shrunk
ones. The licence of the weights follows that of the photographs.

## Recipe
```
{{commands}}
```

## Results
Input and output: PSNR of {VALIDATION_PATCHES} validation patches.

{{table}}

## Limits
"Undertrained" marks a network that more training may still improve: a win over it is not claimed.
"""


@dataclass(frozen=True, kw_only=True)
class BaselineTraining(RestorationTraining):
    """The settings of ``python -m benchmarks.baselines.train``."""

    LEARNING_RATES: ClassVar[Mapping[str, float]] = MappingProxyType({"adam": 1e-3, "muon": 3e-3})

    baseline: str = option()
    """A row of :data:`benchmarks.baselines.catalog.BASELINES`."""
    severity: str = option(
        "", "distortions to train on, as for tools; or clean, small images alone (default: moderate; clean for x4)"
    )
    patch_size: int = option(0, "pixels of the distorted patches (default: 48; 24 for x4)", values="positive")
    saturation_prob: float = option(0.0, "share of the patches of which a part is made white or black", values="share")
    init: tuple[Path, ...] = option(
        (), "weights to go on from: of the same baseline; of a cascade the tools of its stages", recorded=False
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "severity", self.severity or self.row.severity)
        object.__setattr__(self, "patch_size", self.patch_size or self.row.patch_size)
        super().__post_init__()
        if self.severity != CLEAN:
            check_severity(self.severity)
        elif self.row.factor == 1:
            raise ValueError(f"{self.baseline} keeps the size of images and cannot learn from clean ones")
        if len(self.init) > 1 and not isinstance(self.row.network(), Cascade):
            raise ValueError(f"{self.baseline} starts from one file of weights; several, of tools, are for a cascade")

    @property
    def row(self) -> Baseline:
        """The baseline's row of the catalog."""
        return find_baseline(self.baseline)

    @property
    def path(self) -> Path:
        """The file of the weights."""
        return self.out / f"{self.baseline}.safetensors"


def train_baseline(settings: BaselineTraining, source: ImageSource, report: Report = lambda _: None) -> Training:
    """Train a baseline and write its weights, with a model card of all baselines in ``settings.out``.

    A run that was interrupted goes on when it is repeated.

    Args:
        settings: what and how.
        source: photographs, some of which are kept for validation.
        report: called about twice a second.

    Raises:
        ValueError: no image is large enough, ``init`` does not fit the baseline, or a device that cannot be used.
        TrainingError: a checkpoint in ``out`` is damaged or belongs to another run.
    """
    usable_device(settings.device)
    torch.manual_seed(settings.seed)
    network, factor = settings.row.network(), settings.row.factor
    earlier = _start(network, settings)
    kept, held_out = split_images(len(source))
    cut = partial(
        PatchSampler,
        source,
        patch_size=settings.patch_size,
        draw_distortion=partial(draw_distortion, settings.severity),
        factor=factor,
        saturation_prob=settings.saturation_prob,
    )
    sampler = cut(indices=kept, device=settings.draw_device)
    pairs = cut(indices=held_out).batch(np.random.default_rng([settings.seed, 1]), VALIDATION_PATCHES)
    inputs, targets = (as_tensor(side, settings.device) for side in pairs)
    network.to(settings.device)
    number, start = len(earlier), validate(network, inputs, targets)
    result, recipe = train_network(
        replace(settings, learning_rate=settings.highest_rate / (number + 1) ** 0.5),
        f"{settings.baseline}-{number + 1}",
        network,
        lambda step: sampler.batch(np.random.default_rng([settings.seed, number, 0, step]), settings.batch_size),
        restoring(network, LOSSES[settings.loss], settings.device),
        Validation(
            lambda: {OUTPUT: validate(network, inputs, targets)},
            VALIDATION_SECONDS,
            {INPUT: float(psnr(bicubic_upscale(inputs, factor), targets).mean())},
        ),
        identity={"images": len(kept), "held_out": set(kept).isdisjoint(held_out), "start": digest(network)},
        report=report,
    )
    recipe |= {"patches": result.steps * settings.batch_size, "psnr_start": round(start, 4), "earlier": earlier}
    weights = BaselineWeights(settings.row, result.state, recipe)

    def write() -> None:
        write_baseline(settings.path, weights)
        write_baselines_card(settings.out)

    by_first(write)
    return Training.of(recipe)


def _start(network: BaselineNetwork, settings: BaselineTraining) -> list[Mapping[str, Any]]:
    """Load the start weights; return the recipes that they come from, if they are the baseline's own."""
    if not settings.init:
        return []
    if isinstance(network, Cascade) and (len(settings.init) > 1 or is_tool(settings.init[0])):
        tools = [read_tool(path, network.network) for path in settings.init]
        if len(tools) > len(network.stages):
            raise ValueError(f"{len(tools)} tools are too many for the {len(network.stages)} stages of a cascade")
        for number, stage in enumerate(network.stages):
            stage.load_state_dict(dict(tools[min(number, len(tools) - 1)].state))
            if number >= len(tools):  # further stages start as the identity
                zeroed(last_layer(cast(ToolNetwork, stage)))
        return []
    weights = read_baseline(settings.init[0], settings.baseline)
    network.load_state_dict(dict(weights.state))
    return passes(weights.recipe)


def write_baselines_card(folder: Path) -> None:
    """Write the model card ``folder/README.md`` of all baselines that lie there."""
    heads = ["baseline", "parameters", "MAC a pixel", "trained on", "minutes", "input, dB", "output, dB", "training"]
    rows = []
    commands: dict[str, None] = {}
    for path in sorted(folder.glob("*.safetensors")):
        weights = read_baseline(path)
        row, recipes = weights.baseline, passes(weights.recipe)
        minutes = sum(float(recipe.get("seconds") or 0) for recipe in recipes) / 60
        cells = [row.title, f"{row.parameters:,}", f"{row.macs_per_pixel:,.0f}", recipes[-1].get("severity", "")]
        cells += [f"{minutes:.0f}", *(recipes[-1].get(name, "") for name in ("psnr_input", "psnr_output"))]
        rows.append([*cells, Training.of(weights.recipe)])
        commands |= dict.fromkeys(str(recipe["command"]) for recipe in recipes if recipe.get("command"))
    text = CARD.format(commands="\n".join(commands), table="\n".join(markdown_table(heads, rows)))
    write_card(folder / "README.md", text)
