"""Training the super-resolvers: first for PSNR, then, for texture, against a discriminator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore_env.images.sources import ImageSource
from restore_env.toolbox import usable_device
from sr_models.discriminators.discriminator import MIN_CROP
from sr_models.extractors.squeezenet import SqueezeNet
from sr_models.losses.perceptual import SQUEEZENET_DEPTHS, VGG19_CONV5_4, VGG19_FIVE_DEPTHS, PerceptualLoss
from sr_models.super_resolver import GENERATORS, STAGES, GeneratorWeights, read_generator, write_generator
from sr_models.training.blind_distortion import DISTORTIONS, SCALE
from sr_models.training.cards import write_sr_card
from sr_models.training.crops import SrPairSampler
from sr_models.training.frozen_networks import FrozenNetworks
from sr_models.training.gan import GAN, GANConfig, check_gan
from sr_models.training.grids import write_grid
from sr_models.training.validation import Validation
from tools_zoo.training.cards import source_version
from tools_zoo.training.curves import draw_run
from tools_zoo.training.losses import Batch, as_tensor
from tools_zoo.training.run_log import RunLog
from tools_zoo.training.runs import split_images
from tools_zoo.training.settings import Budget, Schedule
from tools_zoo.training.trainer import Progress, TrainingResult, digest, fit

VALIDATION_SIZE = 144
VALIDATION_SECONDS = 30.0
OUTPUTS, BICUBIC = ("psnr/output", "perceptual/output"), ("psnr/bicubic", "perceptual/bicubic")
"""The tags of a run's log."""
CURVES = {OUTPUTS[0]: "restored", BICUBIC[0]: "bicubic"}
"""What is drawn of a run's log, and what the picture calls it."""


@dataclass(frozen=True)
class Model:
    """How one of the two super-resolvers is trained, by its paper."""

    generator: str
    """A key of :data:`sr_models.super_resolver.GENERATORS`."""
    gan: GANConfig
    vgg_depths: tuple[float, ...]
    """Weights of VGG19's depths in the perceptual loss, where that is what looks."""
    faster: str = ""
    """Parameters whose name has this in it learn five times as fast in the GAN stage."""


MODELS: Mapping[str, Model] = MappingProxyType(
    {
        "sft": Model(
            "sft",
            GANConfig("vgg", semantic=False, pixel=0.0, perceptual=1.0, adversarial=5e-3, category=5e-3),
            VGG19_CONV5_4,
            faster="condition",
        ),
        "sed": Model(
            "rrdb_small",
            GANConfig("patch", semantic=True, pixel=1.0, perceptual=0.1, adversarial=1e-2, category=0.0),
            VGG19_FIVE_DEPTHS,
        ),
    }
)
"""The two models (Wang et al., 2018, section 3.4; Li et al., 2024, section 4.1)."""
FASTER = 5.0


@dataclass(frozen=True)
class SrTraining:
    """The settings of ``imagerestore train sr``."""

    out: Path
    """Folder for weights, checkpoints, logs, sample grids and the model card."""
    model: str
    """A key of :data:`MODELS`."""
    budgets: Mapping[str, Budget]
    """By stage; a stage without one is left out."""
    generator: str | None = None
    """A key of :data:`sr_models.super_resolver.GENERATORS`, in place of the model's."""
    gan: GANConfig | None = None
    """In place of the model's."""
    init: Path | None = None
    """Generator weights to start from."""
    distortion: str = "bicubic"
    """A key of :data:`sr_models.training.blind_distortion.DISTORTIONS`."""
    crop_size: int = 96
    """Pixels of the targets."""
    batch_size: int = 8
    seed: int = 0
    device: str = "cpu"
    workers: int = 1
    command: str = ""
    """The command line, for the model card."""
    schedules: Mapping[str, Schedule] = field(
        default_factory=lambda: {"psnr": Schedule(learning_rate=1e-3), "gan": Schedule(learning_rate=2e-4)}
    )
    """By stage."""

    def __post_init__(self) -> None:
        for what, name, table in (
            ("model", self.model, MODELS),
            ("generator", self.generator, GENERATORS),
            ("distortion", self.distortion, DISTORTIONS),
        ):
            if name is not None and name not in table:
                raise ValueError(f"unknown {what} {name!r}: choose from {', '.join(table)}")
        if "gan" in self.budgets:
            check_gan(self.gan_config)
            if self.crop_size < MIN_CROP:
                raise ValueError(
                    f"crops of {self.crop_size} pixels are too small for a discriminator: {MIN_CROP} or more"
                )

    @property
    def network(self) -> str:
        """The generator's name."""
        return self.generator or MODELS[self.model].generator

    @property
    def gan_config(self) -> GANConfig:
        """The GAN stage's discriminator and losses."""
        return self.gan or MODELS[self.model].gan

    def with_schedule(self, learning_rate: float | None, precision: Literal["fp32", "bf16"]) -> SrTraining:
        """The same settings with another learning rate (if any is given) and precision, in all stages."""
        changes: dict[str, Any] = {} if learning_rate is None else {"learning_rate": learning_rate}
        changed = {name: replace(each, precision=precision, **changes) for name, each in self.schedules.items()}
        return replace(self, schedules=changed)


@dataclass(frozen=True)
class SrProgress:
    """A glance at the training of a stage, for display."""

    stage: str
    progress: Progress
    psnr_bicubic: float
    """Validation crops enlarged bicubically, dB."""
    psnr_output: float
    """The same crops by the current weights, dB."""
    distance: float
    """Perceptual distance of the same, lower is better."""


def train_sr(
    settings: SrTraining,
    source: ImageSource,
    frozen: FrozenNetworks,
    report: Callable[[SrProgress], None] = lambda _: None,
) -> dict[str, TrainingResult]:
    """Train a super-resolver's stages one after the other; each one's weights are written when it ends.

    A stage that is finished in ``settings.out`` is not trained again; one that was interrupted goes on. The GAN stage
    starts from the PSNR stage's weights there, or from ``settings.init``.

    Args:
        settings: what to train and how long.
        source: photographs.
        frozen: the networks that losses and validation use.
        report: called about twice a second.

    Returns:
        For each stage what training gave.

    Raises:
        ValueError: a GAN stage with nothing to start from, or start weights of another network.
    """
    usable_device(settings.device)
    results: dict[str, TrainingResult] = {}
    for stage in STAGES:
        if stage in settings.budgets:
            run = _Stage(settings, stage, source, frozen.to(settings.device))
            results[stage] = run.train(report)
    return results


class _Stage:
    """One stage of a run: what it starts from, what it minimises, what it leaves behind."""

    def __init__(self, settings: SrTraining, stage: str, source: ImageSource, frozen: FrozenNetworks) -> None:
        self.settings, self.stage, self.frozen = settings, stage, frozen
        torch.manual_seed(settings.seed)
        self.generator = GENERATORS[settings.network]()
        self.started_from = self._load_start()
        self.network: nn.Module = self.generator
        if stage == "gan":
            model = MODELS[settings.model]
            depths = SQUEEZENET_DEPTHS if isinstance(frozen.features, SqueezeNet) else model.vgg_depths
            loss = PerceptualLoss(frozen.features, depths)
            self.network = GAN(self.generator, settings.gan_config, loss, frozen.semantics, frozen.prior)
        kept, held_out = split_images(len(source))
        self.images = len(kept)
        degrade = DISTORTIONS[settings.distortion]
        self.sampler = SrPairSampler(source, kept, settings.crop_size, degrade)
        largest = max(min(source.size(index)) for index in held_out)
        held = SrPairSampler(source, held_out, min(VALIDATION_SIZE, largest // SCALE * SCALE), degrade)
        self.validation = Validation(held, frozen.distance, settings.seed, settings.device)

    def train(self, report: Callable[[SrProgress], None]) -> TrainingResult:
        settings, stage = self.settings, self.stage
        logs = settings.out / "logs" / stage
        bicubic = self.validation.psnr_bicubic, self.validation.distance_bicubic

        def measure() -> dict[str, float]:
            return dict(zip(OUTPUTS, self.validation.measure(self.generator, self.maps), strict=True))

        def show(progress: Progress) -> None:
            report(SrProgress(stage, progress, bicubic[0], *log.note(progress).values()))

        checkpoint = settings.out / "checkpoints" / f"{stage}.pt"
        faster = MODELS[settings.model].faster if stage == "gan" else ""
        with RunLog(logs, measure, VALIDATION_SECONDS, dict(zip(BICUBIC, bicubic, strict=True))) as log:
            fitted = fit(
                self.network,
                lambda step: self.sampler.batch(
                    np.random.default_rng([settings.seed, STAGES.index(stage), 0, step]), settings.batch_size
                ),
                self._objective,
                settings.budgets[stage],
                settings.schedules[stage],
                checkpoint,
                parts=[self.generator, self.network.discriminator] if isinstance(self.network, GAN) else (),
                speed=lambda name: FASTER if faster and faster in name else 1.0,
                device=settings.device,
                identity=self._identity(),
                report=show,
                workers=settings.workers,
            )
        draw_run(checkpoint.with_suffix(".png"), logs, CURVES, "validation PSNR, dB")
        self._write(fitted)
        return fitted

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """The second argument of generators that take maps."""
        if not getattr(self.generator, "takes_maps", False):
            return ()
        with torch.no_grad():
            return (self.frozen.prior(images),)

    def _objective(self, batch: Batch) -> Tensor:
        inputs, targets = (as_tensor(side, self.settings.device) for side in batch)
        outputs = self.generator(inputs, *self.maps(inputs)).float()
        if isinstance(self.network, GAN):
            loss: Tensor = self.network.loss(outputs, targets)
            return loss
        return F.l1_loss(outputs, targets)

    def _load_start(self) -> str:
        """Put the start weights in place; return what they are."""
        settings = self.settings
        before = settings.out / "psnr.safetensors"
        own = self.stage == "gan" and ("psnr" in settings.budgets or (settings.init is None and before.exists()))
        start = before if own else settings.init
        if start is None:
            if self.stage == "gan":
                raise ValueError(f"{before}: no such file; train the PSNR stage first, or give weights to start from")
            return "random weights"
        weights = read_generator(start)
        if weights.network != settings.network:
            raise ValueError(f"{start}: weights of {weights.network}, to train {settings.network}")
        self.generator.load_state_dict(dict(weights.state))
        return digest(self.generator)

    def _identity(self) -> dict[str, str | int | float]:
        settings = self.settings
        names = ("model", "network", "distortion", "crop_size", "batch_size", "seed")
        own = {name: getattr(settings, name) for name in names}
        gan = asdict(settings.gan_config) if self.stage == "gan" else {}
        run = {"stage": self.stage, "images": self.images, "started_from": self.started_from}
        return {**own, **gan, **self.frozen.names(), **run}

    def _write(self, fitted: TrainingResult) -> None:
        settings = self.settings
        prefix = "generator." if isinstance(self.network, GAN) else ""
        state = {key.removeprefix(prefix): value for key, value in fitted.state.items() if key.startswith(prefix)}
        self.generator.load_state_dict(state)
        score, distance = self.validation.measure(self.generator, self.maps)
        schedule = settings.schedules[self.stage]
        recipe: dict[str, Any] = {
            **self._identity(),
            "steps": fitted.steps,
            "seconds": round(fitted.seconds, 1),
            "finished": fitted.finished,
            "precision": schedule.precision,
            "learning_rate": schedule.learning_rate,
            "device": settings.device,
            "psnr_bicubic": round(self.validation.psnr_bicubic, 3),
            "psnr_output": round(score, 3),
            "distance_bicubic": round(self.validation.distance_bicubic, 4),
            "distance_output": round(distance, 4),
            "version": source_version(),
            "command": settings.command,
        }
        weights = GeneratorWeights(settings.network, self.stage, state, recipe)
        write_generator(settings.out / f"{self.stage}.safetensors", weights)
        columns = [
            self.validation.bicubic,
            self.validation.upscaled(self.generator, self.maps),
            self.validation.targets,
        ]
        write_grid(settings.out / f"{self.stage}.png", columns)
        write_sr_card(settings.out)
