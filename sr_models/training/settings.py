"""Settings of the trainings of super-resolvers and of the semantic prior."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Literal

from sr_models.discriminators.discriminator import MIN_CROP
from sr_models.generators import UPSCALE
from sr_models.losses.perceptual import VGG19_CONV5_4, VGG19_FIVE_DEPTHS
from sr_models.super_resolver import GENERATORS
from sr_models.training.blind_distortion import DISTORTIONS
from sr_models.training.gan import GANConfig
from tools_zoo.training.settings import Budget, NetworkTraining, PhotographSettings, option

PSNR_SHARE = 0.6
"""The PSNR stage's share of the minutes, where both stages are trained."""
PIXEL_PERCEPTUAL = 1.0
"""Weight of SeD's perceptual loss with the pixel-wise discriminator (Li et al., 2024, section 4.1)."""


@dataclass(frozen=True)
class Model:
    """How one of the two super-resolvers is trained, by its paper."""

    generator: str
    """A key of :data:`sr_models.super_resolver.GENERATORS`."""
    gan: GANConfig
    vgg_depths: tuple[float, ...]
    """Weights of VGG19's depths in the perceptual loss, where VGG19 is the extractor."""
    faster: str = ""
    """Parameters whose name contains this learn five times as fast in the GAN stage."""


MODELS: Mapping[str, Model] = MappingProxyType(
    {
        "sft": Model(
            "sft",
            GANConfig("vgg", semantic=False, pixel=1.0, perceptual=1.0, adversarial=5e-3, category=5e-3),
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
"""The two models (Wang et al., 2018, section 3.4; Li et al., 2024, section 4.1). Added to what is published are the
artefact loss and, for SFT-GAN, the mean absolute error: without them it invents patterns on flat ground."""


@dataclass(frozen=True, kw_only=True)
class SrTraining(PhotographSettings, NetworkTraining):
    """The settings of ``imagerestore train sr``. Minutes are for all stages together, steps for each."""

    MINUTES: ClassVar[float] = 60.0
    STAGE_RATES: ClassVar[Mapping[str, float]] = MappingProxyType({"psnr": 1e-3, "gan": 2e-4})

    model: Literal["sft", "sed"] = option(help="which paper's networks and losses")
    stage: Literal["psnr", "gan", "both"] = option("both", "what to train", recorded=False)
    init: Path | None = option(None, "generator weights to start from (default: random)", recorded=False)
    generator: str | None = option(None, "in place of the model's", choices=tuple(GENERATORS), recorded=False)
    distortion: str = option("bicubic", "what makes the low-resolution images", choices=tuple(DISTORTIONS))
    teacher: Path | None = option(
        None, "folder of a better network's outputs, as further targets of the PSNR stage", recorded=False
    )
    teacher_share: float = option(0.5, "of them in the loss", values="share", recorded=False)
    drawing_share: float = option(0.1, "crops of rendered text and line art, of all", values="share")
    crop_size: int = option(96, "pixels of the targets", values="positive")
    batch_size: int = option(8, "crops in a batch", values="positive")
    learning_rate: float | None = option(
        None, "at its highest (default: 1e-3 for the PSNR stage, 2e-4 for the GAN stage)", values="positive"
    )
    prior: str = option("default", "shipped (default), a weights file, or segformer:MODEL@COMMIT", recorded=False)
    squeezenet: Path | None = option(
        None, "ImageNet weights for the losses (default: the prior's trunk)", recorded=False
    )
    vgg: Path | None = option(None, "VGG19's weights: the perceptual loss as published", recorded=False)
    clip: Path | None = option(None, "CLIP RN50's weights: the semantics of SeD as published", recorded=False)
    discriminator: Literal["vgg", "patch", "pixel"] | None = option(None, "in place of the model's", recorded=False)
    adversarial_loss: Literal["vanilla", "relativistic"] = option("vanilla", "of the GAN stage", recorded=False)
    pixel_weight: float | None = option(
        None, "of the GAN stage's mean absolute error (default: the model's)", recorded=False
    )
    artefact_weight: float | None = option(
        None, "of the GAN stage's loss of artefacts (default: the model's)", recorded=False
    )
    semantics: bool = option(True, "the same discriminator without semantics", recorded=False)
    discriminator_width: int = option(64, "channels of its first layer", values="positive", recorded=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.teacher is not None and self.distortion != "bicubic":
            raise ValueError(f"teachers upscale bicubically shrunk photographs: none for distortion {self.distortion}")
        if "gan" in self.budgets:
            _ = self.gan  # raises ValueError if its parts do not go together
            if self.crop_size < MIN_CROP:
                raise ValueError(f"crop_size {self.crop_size} is too small for a discriminator: {MIN_CROP} or more")

    @property
    def network(self) -> str:
        """The generator's name."""
        return self.generator or MODELS[self.model].generator

    @property
    def budgets(self) -> Mapping[str, Budget]:
        """The budget of each stage that is trained."""
        if self.stage != "both":
            return {self.stage: self.budget}
        minutes = self.budget.minutes
        if minutes is None:
            return {"psnr": self.budget, "gan": self.budget}
        return {"psnr": Budget(minutes * PSNR_SHARE), "gan": Budget(minutes * (1 - PSNR_SHARE))}

    @property
    def gan(self) -> GANConfig:
        """The GAN stage's discriminator and losses: the model's, as far as the settings do not change them."""
        own = MODELS[self.model].gan
        name = self.discriminator or own.discriminator
        return replace(
            own,
            discriminator=name,
            semantic=own.semantic and self.semantics,
            perceptual=PIXEL_PERCEPTUAL if name == "pixel" and own.semantic else own.perceptual,
            category=own.category if name == "vgg" else 0.0,
            pixel=own.pixel if self.pixel_weight is None else self.pixel_weight,
            artefact=own.artefact if self.artefact_weight is None else self.artefact_weight,
            adversarial_loss=self.adversarial_loss,
            width=self.discriminator_width,
        )


@dataclass(frozen=True, kw_only=True)
class PriorTraining(NetworkTraining):
    """The settings of ``imagerestore train prior``."""

    MINUTES: ClassVar[float] = 15.0
    LEARNING_RATES: ClassVar[Mapping[str, float]] = MappingProxyType({"adam": 1e-3, "muon": 3e-3})

    labels: tuple[Path, ...] = option(
        help="folders that hold images/ and labels/: PNGs of the categories' ids, 255 where unknown",
        metavar="DIR",
        recorded=False,
    )
    squeezenet: Path | None = option(None, "SqueezeNet 1.1's weights, .npz (default: random weights)", recorded=False)
    trunk_speed: float = option(
        0.3, "learning rate of a trunk from --squeezenet, relative to the decoder's", values="positive"
    )
    batch_size: int = option(8, "patches in a batch", values="positive")
    patch_size: int = option(256, "pixels of the high-resolution patches, a multiple of 4", values="positive")
    slight_share: float = option(0.3, "share of the patches with slight noise and JPEG", values="share")
    clip_norm: float = option(1.0, "largest norm of a gradient", values="positive")
    ema_decay: float = option(0.995, "decay of the exponential moving average of the weights", values="share")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patch_size < 16 or self.patch_size % UPSCALE:
            raise ValueError(f"patch_size {self.patch_size}: expected a multiple of {UPSCALE} of 16 or more")
