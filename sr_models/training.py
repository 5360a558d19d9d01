"""Training the super-resolvers: first for PSNR, then, for texture, against a discriminator."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore_env.metrics import psnr
from restore_env.sources import ImageSource
from restore_env.toolbox import bicubic_enlarge, usable_device
from sr_models.adversarial import Adversary, Rivals
from sr_models.clip import CLIPResNet50, load_clip
from sr_models.crops import CropSampler
from sr_models.degradations import DEGRADATIONS
from sr_models.extractors import Extractor
from sr_models.grids import write_grid
from sr_models.perceptual import SQUEEZENET_DEPTHS, VGG19_CONV5_4, PerceptualDistance, PerceptualLoss
from sr_models.prior import SemanticPrior, load_prior
from sr_models.squeezenet import SqueezeNet, load_squeezenet
from sr_models.super_resolver import GENERATORS, STAGES, GeneratorWeights, read_generator, write_generator
from sr_models.vgg import VGG19, load_vgg19
from tools_zoo.cards import source_version, write_card
from tools_zoo.curves import draw_run
from tools_zoo.fitting import Batch, Budget, Fitted, Progress, Schedule, as_tensor, digest, fit, summary_writer
from tools_zoo.training import split_images

VALIDATION_CROPS, VALIDATION_SIZE = 12, 144
VALIDATION_SECONDS = 30
CURVES = {"psnr/output": "restored", "psnr/bicubic": "bicubic"}
"""What is drawn of a run's log, and what the picture calls it."""


@dataclass(frozen=True)
class Model:
    """How one of the two super-resolvers is trained, by its paper."""

    generator: str
    """A key of :data:`sr_models.super_resolver.GENERATORS`."""
    adversary: Adversary
    faster: str = ""
    """Parameters whose name has this in it learn five times as fast in the GAN stage."""


MODELS: Mapping[str, Model] = MappingProxyType(
    {
        "sft": Model(
            "sft",
            Adversary("vgg", semantic=False, pixel=0.0, perceptual=1.0, adversarial=5e-3, category=5e-3),
            faster="condition",
        ),
        "sed": Model(
            "rrdb_small",
            Adversary("patch", semantic=True, pixel=1.0, perceptual=0.1, adversarial=1e-2, category=0.0),
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
    adversary: Adversary | None = None
    """In place of the model's."""
    init: Path | None = None
    """Generator weights to start from."""
    degradation: str = "bicubic"
    """A key of :data:`sr_models.degradations.DEGRADATIONS`."""
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
            ("degradation", self.degradation, DEGRADATIONS),
        ):
            if name is not None and name not in table:
                raise ValueError(f"unknown {what} {name!r}: choose from {', '.join(table)}")

    @property
    def network(self) -> str:
        """The generator's name."""
        return self.generator or MODELS[self.model].generator

    @property
    def rivalry(self) -> Adversary:
        """The GAN stage's discriminator and losses."""
        return self.adversary or MODELS[self.model].adversary

    def with_schedule(self, learning_rate: float | None, precision: Literal["fp32", "bf16"]) -> SrTraining:
        """The same settings with another learning rate (if any is given) and precision, in all stages."""
        changes: dict[str, Any] = {} if learning_rate is None else {"learning_rate": learning_rate}
        changed = {name: replace(each, precision=precision, **changes) for name, each in self.schedules.items()}
        return replace(self, schedules=changed)


@dataclass(frozen=True)
class Eyes:
    """The frozen networks that training looks through; none of them is needed to use what it makes."""

    prior: SemanticPrior
    """Makes maps and tells categories."""
    distance: SqueezeNet
    """Extractor of the perceptual distance that validation reports."""
    features: SqueezeNet | VGG19
    """Extractor of the perceptual loss."""
    depths: tuple[float, ...]
    """Weights of its depths."""
    semantics: SqueezeNet | CLIPResNet50
    """Extractor of what a semantic discriminator is told."""

    @staticmethod
    def open(
        prior: str | os.PathLike[str] = "default",
        squeezenet: str | os.PathLike[str] | None = None,
        vgg: str | os.PathLike[str] | None = None,
        clip: str | os.PathLike[str] | None = None,
    ) -> Eyes:
        """Load them: a prior by name or file; files of SqueezeNet's (default: the prior's trunk), VGG19's, CLIP's.

        Raises:
            ValueError: a file is missing, or is not what it should be.
        """
        network = load_prior(prior)
        trunk = copy.deepcopy(network.trunk) if squeezenet is None else load_squeezenet(squeezenet)
        return Eyes(
            prior=network,
            distance=trunk,
            features=trunk if vgg is None else load_vgg19(vgg),
            depths=SQUEEZENET_DEPTHS if vgg is None else VGG19_CONV5_4,
            semantics=trunk if clip is None else load_clip(clip),
        )

    def to(self, device: str) -> Eyes:
        """Copies on a device, frozen."""
        copied = copy.deepcopy(self)
        for network in (copied.prior, copied.distance, copied.features, copied.semantics):
            network.to(device).eval().requires_grad_(False)
        return copied


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


class Validation:
    """Crops of photographs kept from training, what is measured on them, and the pictures of them."""

    def __init__(self, sampler: CropSampler, extractor: Extractor, seed: int, device: str) -> None:
        pairs = sampler.batch(np.random.default_rng([seed, 1]), VALIDATION_CROPS)
        self.inputs, self.targets = (as_tensor(side, device) for side in pairs)
        self._distance = PerceptualDistance(extractor).to(device)
        self.bicubic = bicubic_enlarge(self.inputs)
        self.psnr_bicubic, self.distance_bicubic = self._compare(self.bicubic)

    @torch.no_grad()
    def measure(self, generator: nn.Module, maps: Callable[[Tensor], tuple[Tensor, ...]]) -> tuple[float, float]:
        """PSNR (dB) and perceptual distance of a generator's outputs."""
        return self._compare(self.enlarged(generator, maps))

    @torch.no_grad()
    def enlarged(self, generator: nn.Module, maps: Callable[[Tensor], tuple[Tensor, ...]]) -> Tensor:
        """What a generator makes of the crops, clipped."""
        training = generator.training
        outputs = generator.eval()(self.inputs, *maps(self.inputs))
        generator.train(training)
        clipped: Tensor = outputs.clamp(0, 1)
        return clipped

    def _compare(self, images: Tensor) -> tuple[float, float]:
        with torch.no_grad():
            return float(psnr(images, self.targets).mean()), float(self._distance(images, self.targets).mean())


def train_sr(
    settings: SrTraining,
    source: ImageSource,
    eyes: Eyes,
    report: Callable[[SrProgress], None] = lambda _: None,
) -> dict[str, Fitted]:
    """Train a super-resolver's stages one after the other; each one's weights are written when it ends.

    A stage that is finished in ``settings.out`` is not trained again; one that was interrupted goes on. The GAN stage
    starts from the PSNR stage's weights there, or from ``settings.init``.

    Args:
        settings: what to train and how long.
        source: photographs.
        eyes: what training looks through.
        report: called about twice a second.

    Returns:
        For each stage what training gave.

    Raises:
        ValueError: a GAN stage with nothing to start from, or start weights of another network.
    """
    usable_device(settings.device)
    results: dict[str, Fitted] = {}
    for stage in STAGES:
        if stage in settings.budgets:
            run = _Stage(settings, stage, source, eyes.to(settings.device))
            results[stage] = run.train(report)
    return results


class _Stage:
    """One stage of a run: what it starts from, what it minimises, what it leaves behind."""

    def __init__(self, settings: SrTraining, stage: str, source: ImageSource, eyes: Eyes) -> None:
        self.settings, self.stage, self.eyes = settings, stage, eyes
        torch.manual_seed(settings.seed)
        self.generator = GENERATORS[settings.network]()
        self.started_from = self._load_start()
        self.network: nn.Module = self.generator
        if stage == "gan":
            loss = PerceptualLoss(eyes.features, eyes.depths)
            self.network = Rivals(self.generator, settings.rivalry, loss, eyes.semantics, eyes.prior)
        kept, held_out = split_images(len(source))
        self.images = len(kept)
        degrade = DEGRADATIONS[settings.degradation]
        self.sampler = CropSampler(source, kept, settings.crop_size, degrade)
        held = CropSampler(source, held_out, max(VALIDATION_SIZE, settings.crop_size), degrade)
        self.validation = Validation(held, eyes.distance, settings.seed, settings.device)

    def train(self, report: Callable[[SrProgress], None]) -> Fitted:
        settings, stage = self.settings, self.stage
        logs = settings.out / "logs" / stage
        writer = summary_writer(logs)
        now = {"at": -float("inf"), "psnr": self.validation.psnr_bicubic, "distance": self.validation.distance_bicubic}

        def show(progress: Progress) -> None:
            if progress.seconds - now["at"] >= VALIDATION_SECONDS or progress.step == progress.total:
                now["at"] = progress.seconds
                now["psnr"], now["distance"] = self.validation.measure(self.generator, self.maps)
                writer.add_scalar("psnr/output", now["psnr"], progress.step)
                writer.add_scalar("psnr/bicubic", self.validation.psnr_bicubic, progress.step)
                writer.add_scalar("perceptual/output", now["distance"], progress.step)
                writer.add_scalar("perceptual/bicubic", self.validation.distance_bicubic, progress.step)
                writer.add_scalar("train/loss", progress.loss, progress.step)
                writer.add_scalar("train/learning_rate", progress.learning_rate, progress.step)
            report(SrProgress(stage, progress, self.validation.psnr_bicubic, now["psnr"], now["distance"]))

        checkpoint = settings.out / "checkpoints" / f"{stage}.pt"
        faster = MODELS[settings.model].faster if stage == "gan" else ""
        try:
            fitted = fit(
                self.network,
                lambda step: self.sampler.batch(
                    np.random.default_rng([settings.seed, STAGES.index(stage), 0, step]), settings.batch_size
                ),
                self._objective,
                settings.budgets[stage],
                settings.schedules[stage],
                checkpoint,
                parts=[self.generator, self.network.discriminator] if isinstance(self.network, Rivals) else (),
                speed=lambda name: FASTER if faster and faster in name else 1.0,
                device=settings.device,
                identity=self._identity(),
                report=show,
                workers=settings.workers,
            )
        finally:
            writer.close()
        draw_run(checkpoint.with_suffix(".png"), logs, CURVES, "validation PSNR, dB")
        self._write(fitted)
        return fitted

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """The second argument of generators that take maps."""
        if not getattr(self.generator, "takes_maps", False):
            return ()
        with torch.no_grad():
            return (self.eyes.prior(images),)

    def _objective(self, batch: Batch) -> Tensor:
        inputs, targets = (as_tensor(side, self.settings.device) for side in batch)
        outputs = self.generator(inputs, *self.maps(inputs)).float()
        if isinstance(self.network, Rivals):
            loss: Tensor = self.network.loss(outputs, targets)
            return loss
        return F.l1_loss(outputs, targets)

    def _load_start(self) -> str:
        """Put the start weights in place; return what they are."""
        settings = self.settings
        before = settings.out / "psnr.safetensors"
        if self.stage == "gan" and before.exists():
            start: Path | None = before
        else:
            start = settings.init
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
        names = ("model", "network", "degradation", "crop_size", "batch_size", "seed")
        own = {name: getattr(settings, name) for name in names}
        rivalry = asdict(settings.rivalry) if self.stage == "gan" else {}
        return {**own, **rivalry, "stage": self.stage, "images": self.images, "started_from": self.started_from}

    def _write(self, fitted: Fitted) -> None:
        settings = self.settings
        prefix = "generator." if isinstance(self.network, Rivals) else ""
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
            self.validation.enlarged(self.generator, self.maps),
            self.validation.targets,
        ]
        write_grid(settings.out / f"{self.stage}.png", columns)
        write_sr_card(settings.out)


def write_sr_card(folder: Path) -> None:
    """Write ``folder/README.md``: what the generators are, how each stage was trained, and room for measurements."""
    stages = [folder / f"{stage}.safetensors" for stage in STAGES]
    weights = [read_generator(path) for path in stages if path.exists()]
    rows = [
        "| stage | network | steps | minutes | precision | device | PSNR, dB | perceptual distance |",
        "|---" * 8 + "|",
    ]
    for each in weights:
        recipe = each.recipe
        cells = [
            each.stage,
            each.network,
            recipe.get("steps"),
            f"{float(recipe.get('seconds', 0)) / 60:.1f}",
            recipe.get("precision"),
            recipe.get("device"),
            f"{recipe.get('psnr_bicubic')} -> {recipe.get('psnr_output')}",
            f"{recipe.get('distance_bicubic')} -> {recipe.get('distance_output')}",
        ]
        rows.append(f"| {' | '.join(str(cell) for cell in cells)} |")
    commands = [f"{each.recipe.get('command')}  # {each.recipe.get('version')}" for each in weights]
    losses = [
        f"- GAN stage: {name} {value}"
        for each in weights
        if each.stage == "gan"
        for name, value in each.recipe.items()
        if name in {"discriminator", "semantic", "pixel", "perceptual", "adversarial", "category", "form"}
    ]
    text = f"""# A x4 super-resolver: {weights[0].network if weights else "none yet"}

For RGB scaled to [0, 1]; load with `sr_models.load_super_resolver`. The PSNR stage minimises the mean absolute error,
the GAN stage goes on from its weights with the losses below. Adam with warm-up and cosine decay, weights averaged.
Measured from bicubic to output: {VALIDATION_CROPS} validation crops, from photographs kept from training where there
are enough.

{chr(10).join(rows)}

{chr(10).join(losses)}

```
{chr(10).join(commands)}
```
"""
    write_card(folder / "README.md", text, ["sr"])
