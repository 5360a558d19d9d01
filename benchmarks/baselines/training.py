"""Training a baseline on the tools' data, in passes that are each annealed to their end.

Validation PSNR rises at the end of any annealed run, and then stands still because the learning rate does: the curve of
one run does not tell whether more of it would help. So training is cut into passes, each of which doubles what was
trained before and anneals anew; what the last one added to the PSNR is the worth of a doubling.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from benchmarks.baselines.catalog import CLEAN, Baseline
from benchmarks.baselines.growing import grow, line_up
from benchmarks.baselines.same_size import BaselineNetwork, Cascade, PlainResidual
from benchmarks.baselines.weights import (
    FLAT,
    GROWN,
    GROWN_AFTER,
    GROWN_BY,
    GROWN_FROM,
    GROWN_MINUTES,
    BaselineWeights,
    Training,
    read_baseline,
    write_baseline,
)
from restore_env.distortions.protocol import Levels, check_severity, draw_levels
from restore_env.images.sources import ImageSource
from restore_env.metrics import psnr
from restore_env.patches import PatchSampler
from restore_env.task import check_draws
from restore_env.toolbox import bicubic_upscale, usable_device
from tools_zoo.toolboxes import is_tool, passes, read_tool
from tools_zoo.training.cards import recorded_command, source_version, write_card
from tools_zoo.training.curves import draw_run
from tools_zoo.training.losses import LOSSES, as_tensor, restoring
from tools_zoo.training.patches import drawing, drawn_on
from tools_zoo.training.run_log import RunLog
from tools_zoo.training.runs import CURVES, HELD_OUT_EVERY, INPUT, OUTPUT, held_out_of, split_images, validate
from tools_zoo.training.settings import Budget, Schedule
from tools_zoo.training.trainer import Progress, TrainingResult, digest, fit

VALIDATION_PATCHES = 192
VALIDATION_SECONDS = 15.0
PATCH_SIZES = {1: 48, 4: 24}
"""Pixels of the input patches by the task's factor."""


@dataclass(frozen=True)
class BaselineTraining:
    """The settings of ``python -m benchmarks.baselines.train``."""

    baseline: Baseline
    out: Path
    """Folder for weights, checkpoints, logs and the card."""
    budget: Budget
    """For all passes together."""
    passes: int = 2
    severity: str = "moderate"
    saturation_prob: float = 0.0
    """Share of the patches, of those for validation, too, of which a part is white or black
    (:func:`restore_env.distortions.saturation.saturation_curve`)."""
    init: tuple[Path, ...] = ()
    """Weights of the same baseline to go on from, with their recipe; or to grow from: of a plain one that is no larger,
    or, for a cascade, of tools of its stages' shape, in their order (further stages begin as the last one)."""
    loss: str = "psnr"
    """A key of :data:`tools_zoo.training.trainer.LOSSES`."""
    batch_size: int = 16
    patch_size: int = 48
    seed: int = 0
    device: str = "cpu"
    draws: Literal["host", "device"] = "host"
    """Where patches are distorted: on the host one by one, or on the device all of a batch at once, as a GPU needs it;
    the same distribution."""
    workers: int = 1
    command: str = ""
    """The command line, for the card."""
    schedule: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        check_draws(self.draws)
        if not 0 <= self.saturation_prob <= 1:
            raise ValueError(f"saturation_prob must lie in [0, 1], got {self.saturation_prob}")
        if self.severity != CLEAN:
            check_severity(self.severity)
        elif self.baseline.factor == 1:
            raise ValueError(f"{self.baseline.name} keeps the size of images and cannot learn from clean ones")
        if len(self.init) > 1 and not isinstance(self.baseline.network(), Cascade):
            raise ValueError(
                f"{self.baseline.name} begins with one file of weights; several, of tools, are for a cascade"
            )

    @property
    def path(self) -> Path:
        """The file of the weights."""
        return self.out / f"{self.baseline.name}.safetensors"


@dataclass(frozen=True)
class PassProgress:
    """A glance at a pass, for display."""

    number: int
    progress: Progress
    psnr_input: float
    """Validation patches as they come in (enlarged bicubically), dB."""
    psnr_output: float
    """The same patches restored by the current weights, dB."""


def train_baseline(
    settings: BaselineTraining, source: ImageSource, report: Callable[[PassProgress], None] = lambda _: None
) -> Training:
    """Train a baseline; after every pass its weights lie in ``settings.out``, with a card of all that lie there.

    A run that was interrupted goes on when it is repeated.

    Args:
        settings: what and how.
        source: photographs, some of which are kept for validation.
        report: called about twice a second.

    Raises:
        ValueError: no image is large enough, ``init`` is of another baseline from which this one cannot grow, or of
            more tools than a cascade has stages, or a device that cannot be used.
        TrainingError: a checkpoint in ``out`` is damaged or belongs to another run.
    """
    usable_device(settings.device)
    torch.manual_seed(settings.seed)
    network = settings.baseline.network()
    recipes, origin = _begin(network, settings, source) if settings.init else ([], {})
    for share in range(settings.passes):
        budget = _share(settings.budget, share, settings.passes)
        fitted, recipe = _train_pass(settings, len(recipes), budget, network, source, report)
        network.load_state_dict(fitted.state)
        recipe |= origin
        weights = BaselineWeights(settings.baseline, fitted.state, {**recipe, "earlier": list(recipes)})
        write_baseline(settings.path, weights)
        write_baselines_card(settings.out)
        recipes.append(recipe)
    return Training.of(read_baseline(settings.path).recipe)


def _begin(
    network: BaselineNetwork, settings: BaselineTraining, source: ImageSource
) -> tuple[list[Mapping[str, Any]], dict[str, Any]]:
    """Begin with weights; return the recipes of their passes, if they are the network's own, and what it grew from."""
    if isinstance(network, Cascade) and (len(settings.init) > 1 or is_tool(settings.init[0])):
        tools = [read_tool(path, network.network) for path in settings.init]
        line_up(network, [tool.state for tool in tools])
        return [], _origin(", ".join(tool.name for tool in tools), [tool.recipe for tool in tools])
    start = read_baseline(settings.init[0])
    if start.baseline.name != settings.baseline.name:
        _grow(network, start, settings, source)
        return [], _origin(start.baseline.name, [start.recipe])
    network.load_state_dict(dict(start.state))
    recipes = passes(start.recipe)
    return recipes, {key: recipes[-1][key] for key in GROWN if key in recipes[-1]}


def _origin(names: str, starts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a recipe tells of what a network grew from; a pass that led to several of these counts once."""
    distinct = {json.dumps(recipe, sort_keys=True): recipe for start in starts for recipe in passes(start)}
    seen = sum(int(recipe.get("steps", 0)) * int(recipe.get("batch_size", 0)) for recipe in distinct.values())
    minutes = sum(float(recipe.get("seconds", 0)) for recipe in distinct.values()) / 60
    return {
        GROWN_FROM: names,
        GROWN_AFTER: seen + sum(int(start.get(GROWN_AFTER, 0)) for start in starts),
        GROWN_MINUTES: round(minutes + sum(float(start.get(GROWN_MINUTES, 0)) for start in starts), 1),
        GROWN_BY: [
            *(command for start in starts for command in start.get(GROWN_BY, ())),
            *(_command(recipe) for recipe in distinct.values()),
        ],
    }


def _grow(network: BaselineNetwork, start: BaselineWeights, settings: BaselineTraining, source: ImageSource) -> None:
    """Start from what a smaller network learnt."""
    small = start.baseline.network()
    if not isinstance(small, PlainResidual) or not isinstance(network, PlainResidual):
        raise ValueError(f"{settings.init[0]}: weights of {start.baseline.name}, not of {settings.baseline.name}")
    small.load_state_dict(dict(start.state))
    kept, draw = split_images(len(source))[0], _drawing(settings.severity)
    sampler = PatchSampler(source, kept, settings.patch_size, draw, saturation_prob=settings.saturation_prob)
    inputs, _ = sampler.batch(np.random.default_rng([settings.seed, 2]), settings.batch_size)
    try:
        grow(network, small, as_tensor(inputs))
    except ValueError as error:
        raise ValueError(f"{settings.init[0]}: {settings.baseline.name} cannot grow from it: {error}") from None


def _share(budget: Budget, number: int, count: int) -> Budget:
    """What a pass gets: as much as all before it together, the first two alike."""
    share = 0.5 ** (count - max(1, number))
    if budget.steps is not None:
        return Budget(steps=max(1, round(budget.steps * share)))
    return Budget(minutes=(budget.minutes or 0) * share)


def _train_pass(
    settings: BaselineTraining,
    number: int,
    budget: Budget,
    network: BaselineNetwork,
    source: ImageSource,
    report: Callable[[PassProgress], None],
) -> tuple[TrainingResult, dict[str, Any]]:
    """Train once from the highest learning rate to none; return what came of it, and its recipe."""
    factor = settings.baseline.factor
    kept, held_out = split_images(len(source))
    cut = partial(
        PatchSampler,
        source,
        patch_size=settings.patch_size,
        draw_levels=_drawing(settings.severity),
        factor=factor,
        saturation_prob=settings.saturation_prob,
    )
    sampler = cut(indices=kept, device=drawn_on(settings.draws, settings.device))
    pairs = cut(indices=held_out).batch(np.random.default_rng([settings.seed, 1]), VALIDATION_PATCHES)
    inputs, targets = (as_tensor(side, settings.device) for side in pairs)
    psnr_input = float(psnr(bicubic_upscale(inputs, factor), targets).mean())
    psnr_start = _validated(network, inputs, targets, settings.batch_size)
    schedule = replace(settings.schedule, learning_rate=settings.schedule.learning_rate / (number + 1) ** 0.5)
    name = f"{settings.baseline.name}-{number + 1}"
    logs = settings.out / "logs" / name

    def measure() -> dict[str, float]:
        return {OUTPUT: _validated(network, inputs, targets, settings.batch_size)}

    names = ("severity", "loss", "batch_size", "patch_size", "seed")
    identity = {"pass": number, "images": len(kept)} | {name: getattr(settings, name) for name in names}
    identity |= drawing(settings.draws)
    identity |= {"saturation_prob": settings.saturation_prob} if settings.saturation_prob else {}
    checkpoint = settings.out / "checkpoints" / f"{name}.pt"
    with RunLog(logs, measure, VALIDATION_SECONDS, {INPUT: psnr_input}) as log:
        fitted = fit(
            network,
            lambda step: sampler.batch(np.random.default_rng([settings.seed, number, 0, step]), settings.batch_size),
            restoring(network, LOSSES[settings.loss], settings.device),
            budget,
            schedule,
            checkpoint,
            device=settings.device,
            identity=identity | {"baseline": settings.baseline.name, "start": digest(network)},
            report=lambda now: report(PassProgress(number, now, psnr_input, log.note(now)[OUTPUT])),
            workers=settings.workers,
        )
    draw_run(checkpoint.with_suffix(".png"), logs, CURVES, "validation PSNR, dB")
    network.load_state_dict(fitted.state)
    return fitted, {
        "patches": fitted.steps * settings.batch_size,
        "steps": fitted.steps,
        "seconds": round(fitted.seconds, 1),
        "finished": fitted.finished,
        **identity,
        "held_out": held_out_of(kept, held_out),
        "precision": schedule.precision,
        "optimizer": schedule.optimizer,
        "learning_rate": schedule.learning_rate,
        "device": settings.device,
        "psnr_input": round(psnr_input, 3),
        "psnr_start": round(psnr_start, 3),
        "psnr_output": round(_validated(network, inputs, targets, settings.batch_size), 3),
        "version": source_version(),
        "command": settings.command,
    }


def _drawing(severity: str) -> Callable[[np.random.Generator], Levels]:
    return (lambda rng: Levels()) if severity == CLEAN else partial(draw_levels, severity)


def _validated(network: BaselineNetwork, inputs: Tensor, targets: Tensor, size: int) -> float:
    """Mean PSNR over the validation patches, ``size`` at a time."""
    pairs = zip(torch.split(inputs, size), torch.split(targets, size), strict=True)
    return sum(validate(network, *pair) * len(pair[0]) for pair in pairs) / len(inputs)


def _command(recipe: Mapping[str, Any]) -> str:
    return recorded_command(recipe, optimizer="muon", loss="psnr")


def _trained_on(recipe: Mapping[str, Any]) -> str:
    clipped = recipe.get("saturation_prob", 0)
    return f"{recipe['severity']}; clipped: {clipped:.0%}" if clipped else str(recipe["severity"])


def _minutes(recipes: Sequence[Mapping[str, Any]]) -> str:
    """Those of a baseline's passes, after those of what it grew from, where its file tells."""
    before = float(recipes[-1].get(GROWN_MINUTES, 0))
    own = f"{sum(float(recipe['seconds']) for recipe in recipes) / 60:.1f}"
    return f"{own} after {before:.1f}" if before else own


def write_baselines_card(folder: Path) -> None:
    """Write ``folder/README.md``: how far every baseline that lies there was trained, and by which command."""
    lines = [
        "| baseline | parameters | MAC a pixel | trained on | steps | minutes | input, dB | start, dB | output, dB |"
        " training |",
        "|---|---:|---:|---|---|---:|---:|---:|---:|---|",
    ]
    commands: dict[str, None] = {}
    fair = True
    for path in sorted(folder.glob("*.safetensors")):
        weights = read_baseline(path)
        recipes, row = passes(weights.recipe), weights.baseline
        cells = (
            row.title,
            f"{row.parameters:,}",
            f"{row.macs_per_pixel:,.0f}",
            _trained_on(recipes[-1]),
            " + ".join(str(recipe["steps"]) for recipe in recipes),
            _minutes(recipes),
            *(str(recipes[-1].get(key, "")) for key in ("psnr_input", "psnr_start", "psnr_output")),
            str(Training.of(weights.recipe)),
        )
        lines.append(f"| {' | '.join(cells)} |")
        fair &= recipes[-1].get("held_out", int(recipes[-1]["images"]) >= HELD_OUT_EVERY)
        commands |= dict.fromkeys([*recipes[-1].get(GROWN_BY, ()), *map(_command, recipes)])
    text = f"""# One-network baselines

What toolchains are compared with (`python -m benchmarks.compare`): networks of `benchmarks/baselines/table.py`, for
8-bit RGB scaled to [0, 1], trained on patches of clean photographs (at 1, 2/3 and 1/3 of their size) with the
protocol's mixed distortions, as the tools' own training draws them; x4 networks on bicubically shrunk ones. Optimiser
and loss are told after each command; warm-up and cosine decay, weights averaged. From random weights, or grown from
another network or from tools as these were then (`benchmarks/baselines/growing.py`), whose patches, minutes and
commands are told besides. What it was trained on is that of the last pass, as training commands say it: "12,17" are
the weakest and the strongest of the moderate mixtures, and some patches are lightened or darkened until a part is white
or black. PSNR, as the patches come in, before the last pass and after it: {VALIDATION_PATCHES} validation patches like
those of that pass{", from photographs that were not trained on" if fair else ""}.

Training is cut into passes, each of which is annealed to its end. What the last one added, or the last few where that
one was short, to a doubling of the patches, says whether more training would help: {FLAT} dB or less is flat. Where a
pass was on patches of another kind than those before, this counts what was gained by that, too. A win over a baseline
that is not flat is no win.

{chr(10).join(lines)}

```
{chr(10).join(commands)}
```
"""
    write_card(folder / "README.md", text)
