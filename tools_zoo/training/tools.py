"""Training the tools: each on its own band of its own distortion, alone, with slight others, or in a mixture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from restore_env.distortions.protocol import Levels, draw_levels
from restore_env.images.sources import ImageSource
from restore_env.metrics import psnr
from restore_env.patches import PatchSampler
from restore_env.toolbox import usable_device
from tools_zoo.catalog import SPECS, TOOLS, ToolSpec, training_order
from tools_zoo.networks import NETWORKS, ToolNetwork, last_layer
from tools_zoo.toolboxes import ToolWeights, passes, read_manifest, read_tool, update_toolbox
from tools_zoo.training.cards import recorded_command, source_version, write_card
from tools_zoo.training.curves import draw_run
from tools_zoo.training.patches import drawing, drawn_on
from tools_zoo.training.run_log import RunLog
from tools_zoo.training.settings import Budget, Schedule
from tools_zoo.training.trainer import LOSSES, Progress, TrainingResult, as_tensor, digest, fit, restoring

SLIGHT_NOISE = (0.0, 10.0)
"""Sigma of 255 of the noise that may accompany a blur or JPEG tool's distortion."""
SLIGHT_JPEG = (60.0, 100.0)
"""Quality of the JPEG that may accompany a blur or noise tool's distortion."""
HELD_OUT_EVERY = 25
"""Every so many images one is kept from training, for validation."""
VALIDATION_PATCHES, VALIDATION_SECONDS = 48, 5.0
NOTES = "notes"
"""The section of a toolbox's card that a person writes; it stays when the card is written anew."""
OUTPUT, INPUT = "psnr/output", "psnr/input"
"""The tags of a run's log."""
CURVES = {OUTPUT: "restored", INPUT: "input"}
"""What is drawn of a run's log, and what the picture calls it."""


@dataclass(frozen=True)
class ToolTraining:
    """The settings of ``imagerestore train tools``."""

    out: Path
    """Folder for weights, checkpoints, logs and the model card."""
    budget: Budget
    """For all tools together (minutes), or for each (steps)."""
    tools: tuple[str, ...] = tuple(spec.name for spec in TOOLS)
    warm_start: bool = True
    """Start a tool from its parent in the table, if that is trained or lies in ``out``."""
    init: Path | None = None
    """A toolbox folder: tools that it holds start from their own weights there."""
    slight_share: float = 0.5
    """Share of the patches that carry slight noise and JPEG besides the tool's own distortion."""
    mixed_share: float = 0.0
    """Share of the patches that carry a moderate mixture of all distortions, the tool's own within its band."""
    loss: str = "psnr"
    """A key of :data:`tools_zoo.training.trainer.LOSSES`."""
    shapes: str = "published"
    """A key of :data:`tools_zoo.catalog.SHAPES`: the networks of the toolbox."""
    batch_size: int = 16
    patch_size: int = 48
    seed: int = 0
    device: str = "cpu"
    draws: Literal["host", "device"] = "host"
    """Where patches are distorted: on the host one by one, or on the device all of a batch at once, as a GPU needs it;
    the same distribution."""
    workers: int = 1
    command: str = ""
    """The command line, for the model card."""
    schedule: Schedule = field(default_factory=Schedule)


@dataclass(frozen=True)
class ToolProgress:
    """A glance at the training of one tool, for display."""

    tool: str
    progress: Progress
    psnr_input: float
    """Validation patches as they come in, dB."""
    psnr_output: float
    """The same patches restored by the current weights, dB."""


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


def draw_mixed(spec: ToolSpec, rng: np.random.Generator) -> Levels:
    """Draw the levels of a moderate mixture whose part in the tool's own distortion lies in the tool's band.

    For a large tool it is the strongest part, too: so the tools share the mixtures among themselves.
    """
    while True:
        levels = draw_levels("moderate", rng)
        own = {"blur": levels.blur_sigma, "noise": levels.noise_sigma, "jpeg": levels.jpeg_quality}[spec.kind]
        strongest = levels.strengths[("blur", "noise", "jpeg").index(spec.kind)] == max(levels.strengths)
        if spec.low <= own <= spec.high and (strongest or spec.size == "small"):
            return levels


def held_out_of(kept: Sequence[int], held_out: Sequence[int]) -> bool:
    """Whether the images for validation are none of those that are trained on, as :func:`split_images` gives both."""
    return not set(kept) & set(held_out)


def split_images(count: int) -> tuple[list[int], list[int]]:
    """Which of ``count`` images are trained on, and which are kept for validation (all are both, if there are few)."""
    held_out = list(range(0, count, HELD_OUT_EVERY)) if count >= HELD_OUT_EVERY else list(range(count))
    return [i for i in range(count) if i not in set(held_out)] or held_out, held_out


def train_tools(
    settings: ToolTraining, source: ImageSource, report: Callable[[ToolProgress], None] = lambda _: None
) -> dict[str, TrainingResult]:
    """Train the tools one after the other, parents first, and write them into ``settings.out`` as they are done.

    A tool that is finished in ``out`` is not trained again; one that was interrupted goes on. Minutes are shared among
    the tools that are left by their networks' computation.

    Returns:
        For each tool what training gave.
    """
    order = training_order(settings.tools)
    usable_device(settings.device)
    kept, held_out = split_images(len(source))
    results: dict[str, TrainingResult] = {}
    minutes_left = settings.budget.minutes
    for position, spec in enumerate(order):
        checkpoint = settings.out / "checkpoints" / f"{spec.name}.pt"
        budget = settings.budget
        if minutes_left is not None:
            costs = [NETWORKS[s.network(settings.shapes)]().macs_per_pixel for s in order[position:]]
            budget = Budget(minutes=max(minutes_left, 0.05) * costs[0] / sum(costs))
        fitted = _train_one(settings, spec, budget, checkpoint, source, kept, held_out, report)
        if minutes_left is not None:
            minutes_left -= fitted.seconds / 60
        results[spec.name] = fitted
        write_tools_card(settings.out)
    return results


def _train_one(
    settings: ToolTraining,
    spec: ToolSpec,
    budget: Budget,
    checkpoint: Path,
    source: ImageSource,
    kept: Sequence[int],
    held_out: Sequence[int],
    report: Callable[[ToolProgress], None],
) -> TrainingResult:
    row = TOOLS.index(spec)
    start = _start_weights(settings, spec)
    started_from = "random weights" if start is None else start.stem if start.parent == settings.out else "itself"
    network = _start_network(settings, spec)
    start_digest = {"start": digest(network)} if started_from == "itself" else {}

    def draw(rng: np.random.Generator) -> Levels:
        if rng.random() < settings.mixed_share:
            return draw_mixed(spec, rng)
        return draw_band(spec, rng, slight=bool(rng.random() < settings.slight_share))

    sampler = PatchSampler(source, kept, settings.patch_size, draw, device=drawn_on(settings.draws, settings.device))
    validation = PatchSampler(source, held_out, settings.patch_size, lambda rng: draw_band(spec, rng))
    pairs = validation.batch(np.random.default_rng([settings.seed, row, 1]), VALIDATION_PATCHES)
    inputs, targets = (as_tensor(side, settings.device) for side in pairs)
    psnr_input = float(psnr(inputs, targets).mean())
    logs = settings.out / "logs" / spec.name

    def measure() -> dict[str, float]:
        return {OUTPUT: validate(network, inputs, targets)}

    with RunLog(logs, measure, VALIDATION_SECONDS, {INPUT: psnr_input}) as log:
        fitted = fit(
            network,
            lambda step: sampler.batch(np.random.default_rng([settings.seed, row, 0, step]), settings.batch_size),
            restoring(network, LOSSES[settings.loss], settings.device),
            budget,
            settings.schedule,
            checkpoint,
            device=settings.device,
            identity={
                "seed": settings.seed,
                "batch_size": settings.batch_size,
                "patch_size": settings.patch_size,
                "slight_share": settings.slight_share,
                "mixed_share": settings.mixed_share,
                "loss": settings.loss,
                "network": spec.network(settings.shapes),
                "images": len(kept),
                "started_from": started_from,
                **start_digest,
                **drawing(settings.draws),
            },
            report=lambda now: report(ToolProgress(spec.name, now, psnr_input, log.note(now)[OUTPUT])),
            workers=settings.workers,
        )
    draw_run(checkpoint.with_suffix(".png"), logs, CURVES, "validation PSNR, dB")
    network.load_state_dict(fitted.state)
    psnr_output = validate(network, inputs, targets)
    earlier = (
        []
        if started_from != "itself" or start is None
        else passes(read_tool(start, spec.network(settings.shapes)).recipe)
    )
    recipe = {
        "steps": fitted.steps,
        "seconds": round(fitted.seconds, 1),
        "finished": fitted.finished,
        "seed": settings.seed,
        "batch_size": settings.batch_size,
        "patch_size": settings.patch_size,
        "precision": settings.schedule.precision,
        "optimizer": settings.schedule.optimizer,
        "learning_rate": settings.schedule.learning_rate,
        "slight_share": settings.slight_share,
        "mixed_share": settings.mixed_share,
        "loss": settings.loss,
        "started_from": started_from,
        **drawing(settings.draws),
        "images": len(kept),
        "held_out": held_out_of(kept, held_out),
        "psnr_input": round(psnr_input, 3),
        "psnr_output": round(psnr_output, 3),
        "version": source_version(),
        "command": settings.command,
        "earlier": earlier,
    }
    update_toolbox(settings.out, [ToolWeights(spec.name, spec.network(settings.shapes), fitted.state, recipe)])
    return fitted


def write_tools_card(folder: Path) -> None:
    """Write ``folder/README.md``: what the tools are, how each was trained, and room for their measurement.

    A tool that was trained in several passes has the steps of each.
    """
    tools = [read_tool(folder / f"{name}.safetensors", network) for name, network in read_manifest(folder)]
    together = any(recipe.get("joint") for tool in tools for recipe in passes(tool.recipe))
    columns = ["tool", "network", "steps", "minutes", "precision", "started from"]
    columns += [] if together else ["input, dB", "output, dB"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for tool in tools:
        recipes = passes(tool.recipe)
        steps = " + ".join(f"{recipe.get('steps')}{' joint' * bool(recipe.get('joint'))}" for recipe in recipes)
        minutes = f"{sum(float(recipe.get('seconds', 0)) for recipe in recipes) / 60:.1f}"
        cells = [tool.name, tool.network, steps, minutes, tool.recipe.get("precision"), recipes[0].get("started_from")]
        cells += [] if together else [tool.recipe.get("psnr_input"), tool.recipe.get("psnr_output")]
        lines.append(f"| {' | '.join(str(cell) for cell in cells)} |")
    fair = all(tool.recipe.get("held_out", int(tool.recipe.get("images", 0)) >= HELD_OUT_EVERY) for tool in tools)
    held_out = ", from photographs that were not trained on" if fair else ""
    turns: dict[str, tuple[int, bool]] = {}  # of each command, after the commands that it builds on
    for tool in tools:
        for number, recipe in enumerate(passes(tool.recipe)):
            if recipe.get("command"):
                made = recorded_command(recipe, optimizer="adam", loss="mse")
                turns[made] = max(turns.get(made, (0, False)), (number, bool(recipe.get("joint"))))
    commands = sorted(turns, key=turns.__getitem__)
    measured = f"""PSNR:
{VALIDATION_PATCHES} validation patches of the tool's own distortion alone{held_out}."""
    if together:
        measured = """Then those
with joint steps were trained together on the images that chains make (`tools_zoo/training/joint.py`; Yu et al., 3.3):
what a tool undoes in a chain is no longer its own distortion alone. Steps and minutes of joint training are those of
all tools together."""
    text = f"""# A toolbox of {len(tools)} restoration tools

Small CNNs that each undo one distortion in one band (`tools_zoo/catalog.py`; the networks' shapes are those of
`tools_zoo/networks.py`), for 8-bit RGB scaled to [0, 1]. Load with `tools_zoo.load_toolbox`.

Trained from scratch on patches of clean photographs (at 1, 2/3 and 1/3 of their size) that carry the tool's own
distortion, a share of them slight noise (sigma 0 to 10 of 255) and JPEG (quality 60 to 100) as well, or a moderate
mixture of all distortions. Adam and the mean squared error, or Muon and its logarithm ("psnr"; told after each
command), with warm-up and cosine decay, weights averaged. {measured}

{chr(10).join(lines)}

```
{chr(10).join(commands)}
```
"""
    write_card(folder / "README.md", text, [NOTES, "joint" if together else "tools"])


def validate(network: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """Mean PSNR of what the network makes of ``inputs`` ``(N, 3, H, W)``, dB; it is left in training mode."""
    network.eval()
    with torch.no_grad():
        score = float(psnr(network(inputs), targets).mean())
    network.train()
    return score


def _start_weights(settings: ToolTraining, spec: ToolSpec) -> Path | None:
    """The file to start from: the tool itself in ``init``, or the nearest forebear of its network in ``out``."""
    if settings.init is not None and (settings.init / f"{spec.name}.safetensors").exists():
        return settings.init / f"{spec.name}.safetensors"
    parent = spec.parent if settings.warm_start else None
    while parent is not None:
        path = settings.out / f"{parent}.safetensors"
        if path.exists() and SPECS[parent].size == spec.size:
            return path
        parent = SPECS[parent].parent
    return None


def _start_network(settings: ToolTraining, spec: ToolSpec) -> ToolNetwork:
    torch.manual_seed(settings.seed)
    network = NETWORKS[spec.network(settings.shapes)]()
    last = last_layer(network)
    nn.init.zeros_(last.weight)
    if last.bias is not None:
        nn.init.zeros_(last.bias)
    start = _start_weights(settings, spec)
    if start is not None:
        network.load_state_dict(dict(read_tool(start, spec.network(settings.shapes)).state))
    return network
