"""A training run: gradient descent with validation, TensorBoard logs, learning curves and a recipe.

:func:`train_network` is what every training of a network calls: tools, joint training, super-resolution, prior and
baselines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from restore_env.images.sources import ImageSource, open_images
from restore_env.metrics import psnr
from tools_zoo.training.cards import source_version
from tools_zoo.training.curves import draw_run
from tools_zoo.training.losses import Batch, as_tensor
from tools_zoo.training.settings import NetworkTraining, PhotographSettings, recipe
from tools_zoo.training.trainer import AnyBatch, Progress, TrainingResult, fit

HELD_OUT_EVERY = 25
"""One of this many images is kept from training, for validation."""
OUTPUT, INPUT = "psnr/output", "psnr/input"
"""Tags of a run's log: PSNR of restored validation patches, and of the distorted ones."""
CURVES: Mapping[str, str] = MappingProxyType({OUTPUT: "restored", INPUT: "input"})
"""The tags that are plotted, and their labels."""
Report = Callable[[Progress], None]
"""Called about twice a second."""


@dataclass(frozen=True)
class Validation:
    """What is measured of a network at the beginning of its training, every so often, and at the end."""

    measure: Callable[[], Mapping[str, float]]
    """Measures the network as it is, by the log's tags; leaves it in training mode."""
    seconds: float
    """From one measurement to the next."""
    constants: Mapping[str, float] = field(default_factory=dict)
    """What is logged with it and stays the same, such as the input's PSNR."""
    curves: Mapping[str, str] = field(default_factory=lambda: CURVES)
    """The tags that are plotted, and their labels."""
    label: str = "validation PSNR, dB"
    """Of the plot's vertical axis."""

    @classmethod
    def of_network(cls, network: nn.Module, pairs: Batch, device: str, seconds: float) -> Validation:
        """PSNR of distorted patches before and after a network."""
        inputs, targets = (as_tensor(side, device) for side in pairs)
        before = {INPUT: float(psnr(inputs, targets).mean())}
        return cls(lambda: {OUTPUT: validate(network, inputs, targets)}, seconds, before)


def train_network(
    settings: NetworkTraining,
    name: str,
    network: nn.Module,
    batch_at: Callable[[int], AnyBatch],
    objective: Callable[[AnyBatch], Tensor],
    validation: Validation,
    *,
    parts: Sequence[nn.Module] = (),
    speed: Callable[[str], float] = lambda _: 1.0,
    identity: Mapping[str, Any] = MappingProxyType({}),
    report: Report = lambda _: None,
) -> tuple[TrainingResult, dict[str, Any]]:
    """Train a network with :func:`tools_zoo.training.trainer.fit`, or go on where ``settings.out`` left off.

    The checkpoint, its learning curves and the log lie in ``out/checkpoints`` and ``out/logs`` under the run's name.
    The network is left with the averaged weights.

    Args:
        settings: budget, learning rate and the rest; all recorded fields are part of the checkpoint's identity and of
            the recipe.
        name: of the run, such as the tool's.
        network: its start weights in place.
        batch_at: the batch of a step, a pure function.
        objective: the loss of a batch.
        validation: what is measured on the way.
        parts: modules whose gradients are clipped each by itself.
        speed: by what the learning rate of a parameter, given by its name, is multiplied.
        identity: what else makes the run what it is, such as a digest of its start weights.
        report: called about twice a second, with the run's name and the latest measurement.

    Returns:
        What training gave, and the recipe: settings, identity, steps, seconds and the last measurement, each tag
        ``psnr/output`` as ``psnr_output``.

    Raises:
        TrainingError: the checkpoint is damaged or belongs to another run.
    """
    from torch.utils.tensorboard import SummaryWriter  # takes seconds

    logs, checkpoint = settings.out / "logs" / name, settings.out / "checkpoints" / f"{name}.pt"
    recorded = {**recipe(settings), "learning_rate": settings.highest_rate, **identity}
    compared = {key: value for key, value in recorded.items() if key != "command"}
    measured: Mapping[str, float] = {}
    due = 0.0

    def note(now: Progress) -> None:
        nonlocal measured, due
        if now.seconds >= due or now.step == now.total:
            due = now.seconds + validation.seconds
            measured = {**validation.measure(), **validation.constants}
            loss = {"train/loss": now.loss, "train/learning_rate": now.learning_rate}
            for tag, value in {**measured, **loss}.items():
                log.add_scalar(tag, value, now.step)
        report(replace(now, name=name, metrics=measured))

    with SummaryWriter(str(logs)) as log:
        result = fit(
            network,
            batch_at,
            objective,
            settings,
            checkpoint,
            parts=parts,
            speed=speed,
            identity=compared,
            report=note,
        )
    draw_run(checkpoint.with_suffix(".png"), logs, validation.curves, validation.label)
    network.load_state_dict(result.state)
    measured = {**validation.constants, **validation.measure()}
    outcome = {"steps": result.steps, "seconds": round(result.seconds, 1), "finished": result.finished}
    outcome |= {tag.replace("/", "_"): round(value, 4) for tag, value in measured.items()}
    return result, {**recorded, **outcome, "version": source_version()}


def validate(network: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """Mean PSNR of a network's outputs for ``inputs`` ``(N, 3, H, W)``, dB; it is left in training mode."""
    network.eval()
    with torch.no_grad():
        score = float(psnr(network(inputs), targets).mean())
    network.train()
    return score


def photographs(settings: PhotographSettings, min_size: int) -> ImageSource:
    """Open the photographs that settings name; raise ``ValueError`` if these are pairs."""
    source = open_images(settings.images, min_size=min_size, cache_dir=settings.cache_dir)
    if not isinstance(source, ImageSource):
        raise ValueError(f"{settings.images}: networks are trained on clean photographs, not on pairs")
    return source


def split_images(count: int) -> tuple[list[int], list[int]]:
    """Which of ``count`` images are trained on, and which are kept for validation (all are both, if there are few)."""
    held_out = list(range(0, count, HELD_OUT_EVERY)) if count >= HELD_OUT_EVERY else list(range(count))
    return [i for i in range(count) if i not in set(held_out)] or held_out, held_out


def drawn_on(draws: str, device: str) -> str | None:
    """The device on which training on ``device`` distorts its patches; None: the host."""
    return device if draws == "device" else None


def held_out_of(kept: Sequence[int], held_out: Sequence[int]) -> bool:
    """Whether the validation images are none of those that are trained on, as :func:`split_images` gives both."""
    return not set(kept) & set(held_out)
