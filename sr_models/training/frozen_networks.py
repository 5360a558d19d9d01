"""The frozen networks that the losses and the validation of super-resolution use."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from sr_models.extractors.clip import CLIPResNet50, load_clip
from sr_models.extractors.squeezenet import SqueezeNet, load_squeezenet
from sr_models.extractors.vgg import VGG19, load_vgg19
from sr_models.prior.segformer import SegformerPrior, open_prior
from sr_models.prior.semantic_prior import SemanticPrior, load_prior
from sr_models.training.settings import SrTraining
from tools_zoo.training.trainer import digest


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

    def names(self) -> dict[str, str]:
        """The class of each network and a digest of its weights, by its role."""
        return {role: f"{type(network).__name__} {digest(network)}" for role, network in vars(self).items()}

    def to(self, device: str) -> FrozenNetworks:
        """Return copies on a device, frozen."""
        copied = copy.deepcopy(self)
        for network in vars(copied).values():
            network.to(device).eval().requires_grad_(False)
        return copied
