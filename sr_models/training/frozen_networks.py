"""The frozen networks that the training of super-resolvers looks through."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass

from sr_models.extractors.clip import CLIPResNet50, load_clip
from sr_models.extractors.squeezenet import SqueezeNet, load_squeezenet
from sr_models.extractors.vgg import VGG19, load_vgg19
from sr_models.prior.segformer import SegformerPrior
from sr_models.prior.semantic_prior import SemanticPrior, load_prior, open_prior
from tools_zoo.training.trainer import digest


@dataclass(frozen=True)
class FrozenNetworks:
    """The frozen networks that training looks through; none of them is needed to use what it makes."""

    prior: SemanticPrior | SegformerPrior
    """Makes maps and tells categories."""
    distance: SqueezeNet
    """Extractor of the perceptual distance that validation reports."""
    features: SqueezeNet | VGG19
    """Extractor of the perceptual loss."""
    semantics: SqueezeNet | CLIPResNet50
    """Extractor of what a semantic discriminator is told."""

    @staticmethod
    def open(
        prior: str | os.PathLike[str] = "default",
        squeezenet: str | os.PathLike[str] | None = None,
        vgg: str | os.PathLike[str] | None = None,
        clip: str | os.PathLike[str] | None = None,
    ) -> FrozenNetworks:
        """Load them: a prior by name or file; files of SqueezeNet's (default: the prior's trunk), VGG19's, CLIP's.

        Raises:
            ValueError: a file is missing, or is not what it should be.
        """
        network = open_prior(prior)
        own = network if isinstance(network, SemanticPrior) else load_prior()
        trunk = copy.deepcopy(own.trunk) if squeezenet is None else load_squeezenet(squeezenet)
        return FrozenNetworks(
            prior=network,
            distance=trunk,
            features=trunk if vgg is None else load_vgg19(vgg),
            semantics=trunk if clip is None else load_clip(clip),
        )

    def names(self) -> dict[str, str]:
        """What each of them is, with a short name of its weights: other weights, another run."""
        return {name: f"{type(network).__name__} {digest(network)}" for name, network in vars(self).items()}

    def to(self, device: str) -> FrozenNetworks:
        """Copies on a device, frozen."""
        copied = copy.deepcopy(self)
        for network in (copied.prior, copied.distance, copied.features, copied.semantics):
            network.to(device).eval().requires_grad_(False)
        return copied
