"""Training of the super-resolvers: first for PSNR, then, for texture, against a discriminator."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore_env.images.sources import ImageSource
from restore_env.toolbox import usable_device
from sr_models.extractors.clip import CLIPResNet50, load_clip
from sr_models.extractors.squeezenet import SqueezeNet, load_squeezenet
from sr_models.extractors.vgg import VGG19, load_vgg19
from sr_models.generators import UPSCALE
from sr_models.losses.perceptual import SQUEEZENET_DEPTHS, PerceptualLoss
from sr_models.prior.segformer import SegformerPrior, open_prior
from sr_models.prior.semantic_prior import SemanticPrior, load_prior
from sr_models.super_resolver import GENERATORS, STAGES, GeneratorWeights, read_generator, write_generator
from sr_models.training.blind_distortion import DISTORTIONS
from sr_models.training.cards import write_sr_card
from sr_models.training.crops import SrPairSampler, ValidationCrops
from sr_models.training.gan import GAN
from sr_models.training.settings import MODELS, SrTraining
from sr_models.training.teacher import TeacherOutputs
from tools_zoo.training.distributed import by_first
from tools_zoo.training.losses import Batch, as_tensor
from tools_zoo.training.runs import Validation, split_images
from tools_zoo.training.trainer import Report, TrainingResult, digest, train_network

VALIDATION_SIZE = 144
VALIDATION_SECONDS = 30.0
CURVES = {"psnr/output": "restored", "psnr/bicubic": "bicubic"}
FASTER = 5.0
"""Learning rate of a model's faster parameters in the GAN stage, relative to the others'."""


@dataclass(frozen=True)
class FrozenNetworks:
    """The frozen networks of a training run; the trained generator needs none of them but the prior."""

    prior: SemanticPrior | SegformerPrior
    """Gives the generator's maps and the category loss's categories."""
    distance: SqueezeNet
    """Extractor of the perceptual distance that validation reports."""
    features: SqueezeNet | VGG19
    """Extractor of the perceptual loss."""
    semantics: SqueezeNet | CLIPResNet50
    """Extractor of a semantic discriminator's semantics."""

    @staticmethod
    def load(settings: SrTraining) -> FrozenNetworks:
        """Load the prior and the files of SqueezeNet (default: the prior's trunk), VGG19 and CLIP that settings name.

        Raises:
            ValueError: a file is missing or holds other weights.
        """
        prior = open_prior(settings.prior)
        own = prior if isinstance(prior, SemanticPrior) else load_prior()
        trunk = copy.deepcopy(own.trunk) if settings.squeezenet is None else load_squeezenet(settings.squeezenet)
        features = trunk if settings.vgg is None else load_vgg19(settings.vgg)
        return FrozenNetworks(prior, trunk, features, trunk if settings.clip is None else load_clip(settings.clip))


def train_sr(
    settings: SrTraining, source: ImageSource, frozen: FrozenNetworks, report: Report = lambda _: None
) -> dict[str, TrainingResult]:
    """Train a super-resolver's stages one after the other; each one's weights are written when it ends.

    A stage that is finished in ``settings.out`` is not trained again; one that was interrupted goes on. The GAN stage
    starts from the PSNR stage's weights there, or from ``settings.init``. The frozen networks are moved to the device.

    Raises:
        ValueError: a GAN stage with nothing to start from, or start weights of another network.
    """
    usable_device(settings.device)
    for network in vars(frozen).values():
        network.to(settings.device).eval().requires_grad_(False)
    stages = [stage for stage in STAGES if stage in settings.budgets]
    return {stage: _train_stage(settings, stage, source, frozen, report) for stage in stages}


def _train_stage(
    settings: SrTraining, stage: str, source: ImageSource, frozen: FrozenNetworks, report: Report
) -> TrainingResult:
    torch.manual_seed(settings.seed)
    generator = GENERATORS[settings.network]()
    started_from = _load_start(settings, stage, generator)
    gan = None
    if stage == "gan":
        vgg = isinstance(frozen.features, VGG19)
        loss = PerceptualLoss(frozen.features, MODELS[settings.model].vgg_depths if vgg else SQUEEZENET_DEPTHS)
        gan = GAN(generator, settings.gan, loss, frozen.semantics, frozen.prior)
    start = copy.deepcopy(generator).to(settings.device).eval().requires_grad_(False)
    teacher = TeacherOutputs(settings.teacher) if settings.teacher is not None and gan is None else None

    def upscale(images: Tensor, network: nn.Module = generator) -> Tensor:
        with torch.no_grad():
            maps = [frozen.prior(images)] if getattr(generator, "takes_maps", False) else []
        upscaled: Tensor = network(images, *maps)
        return upscaled

    def objective(batch: Batch) -> Tensor:
        inputs, targets = (as_tensor(side, settings.device) for side in batch)
        outputs = upscale(inputs).float()
        if gan is not None:
            with torch.no_grad():
                before = upscale(inputs, start).float() if settings.gan.artefact else None
            return gan.loss(outputs, targets, before)
        clean, taught = targets[:, :3], targets[:, 3:]
        loss = F.l1_loss(outputs, clean)
        return loss if teacher is None else torch.lerp(loss, F.l1_loss(outputs, taught), settings.teacher_share)

    kept, held_out = split_images(len(source))
    distortion = DISTORTIONS[settings.distortion]
    sampler = SrPairSampler(source, kept, settings.crop_size, distortion, teacher, settings.drawing_share)
    largest = max(min(source.size(index)) for index in held_out)
    held = SrPairSampler(source, held_out, min(VALIDATION_SIZE, largest // UPSCALE * UPSCALE), distortion)
    crops = ValidationCrops(held, frozen.distance, settings.seed, settings.device)
    faster = "" if gan is None else MODELS[settings.model].faster
    rate = settings.learning_rate or settings.STAGE_RATES[stage]
    result, recipe = train_network(
        replace(settings, learning_rate=rate, **asdict(settings.budgets[stage])),
        stage,
        generator if gan is None else gan,
        lambda step: sampler.batch(
            np.random.default_rng([settings.seed, STAGES.index(stage), 0, step]), settings.batch_size
        ),
        objective,
        Validation(lambda: crops.measure(upscale), VALIDATION_SECONDS, crops.compare(crops.bicubic, "bicubic"), CURVES),
        parts=() if gan is None else [generator, gan.discriminator],
        speed=lambda name: FASTER if faster and faster in name else 1.0,
        identity={
            "network": settings.network,
            **({} if gan is None else asdict(settings.gan)),
            **{role: f"{type(network).__name__} {digest(network)}" for role, network in vars(frozen).items()},
            "stage": stage,
            **({} if teacher is None else {"teacher_share": settings.teacher_share}),
            "images": len(kept),
            "started_from": started_from,
        },
        report=report,
    )
    weights = GeneratorWeights(settings.network, stage, generator.state_dict(), {**recipe, "device": settings.device})

    def write() -> None:
        write_generator(settings.out / f"{stage}.safetensors", weights)
        crops.write_grid(settings.out / f"{stage}.png", upscale)
        write_sr_card(settings.out)

    by_first(write)
    return result


def _load_start(settings: SrTraining, stage: str, generator: nn.Module) -> str:
    """Load the start weights, if any; return their digest, or "random weights"."""
    psnr_weights = settings.out / "psnr.safetensors"
    own = stage == "gan" and ("psnr" in settings.budgets or (settings.init is None and psnr_weights.exists()))
    start = psnr_weights if own else settings.init
    if start is None:
        if stage == "gan":
            raise ValueError(f"{psnr_weights}: no such file; train the PSNR stage first, or give weights to start from")
        return "random weights"
    weights = read_generator(start)
    state = generator.state_dict()
    if any(key not in state or state[key].shape != value.shape for key, value in weights.state.items()):
        raise ValueError(f"{start}: weights of {weights.network}, to train {settings.network}")
    generator.load_state_dict({**state, **weights.state})  # what the start lacks, such as SFT layers, begins at random
    return digest(generator)
