"""The x4 super-resolvers: SFT-GAN and SeD, their semantic prior, discriminators, losses and training."""

from sr_models.prior.semantic_prior import SemanticPrior, load_prior
from sr_models.super_resolver import (
    SuperResolver,
    SuperResolverError,
    default_toolbox,
    load_super_resolver,
    super_resolvers,
    with_super_resolvers,
)

__all__ = [
    "SemanticPrior",
    "SuperResolver",
    "SuperResolverError",
    "default_toolbox",
    "load_prior",
    "load_super_resolver",
    "super_resolvers",
    "with_super_resolvers",
]
