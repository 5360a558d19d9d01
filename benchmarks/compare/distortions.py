"""The distortions that methods are compared on: the protocol's, and others.

The default tools and their agent were trained on severity "mixed" (:mod:`restore_env.distortions.mixed`). It contains
"light", "any" and "single", and distortions that resemble "camera", "saved", "poisson" and "webp". Some of the tools'
patches were saturated.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from benchmarks.baselines.catalog import CLEAN
from restore_env.distortions.protocol import ANY, LIGHT, SEVERITIES, SINGLE

MOTION = ("MotionBlur", {"blur_limit": (5, 15), "allow_shifted": False, "direction_range": (0, 0)})
"""Motion of so many pixels, uniform, at any angle, centred."""
POISSON = ("ShotNoise", {"scale_range": (0.005, 0.03)})
"""Photon noise in linear light."""
WEBP = ("ImageCompression", {"compression_type": "webp", "quality_range": (5, 40)})
HAZE = ("RandomBrightnessContrast", {"brightness_limit": (0.3, 0.45), "contrast_limit": (-0.6, -0.45)})
"""Haze of one depth over the patch: what is left of the scene, 40 to 55 %, and the light of the air, added to it."""
LOW_LIGHT = (("RandomGamma", {"gamma_limit": (150, 300)}), ("ShotNoise", {"scale_range": (0.002, 0.01)}))
"""Underexposed, by a gamma of 1.5 to 3, with the photon noise of little light."""
RAIN = ("RandomRain", {"slant_range": (-15, 15), "drop_length": 15, "brightness_coefficient": 1.0, "blur_value": 3})
"""Bright streaks of one direction, and slight blur."""
CAMERA = (
    ("ShotNoise", {"scale_range": (0.01, 0.01)}),
    ("GaussNoise", {"std_range": (0.012, 0.012)}),
    ("ImageCompression", {"quality_range": (70, 70)}),
)
"""A small camera in the dark: photon noise in linear light, reading noise (of 1), then JPEG; the first grows with
brightness, the second does not (Foi et al., TIP 2008)."""
SAVED = ("ImageCompression", {"quality_range": (75, 95)})
"""JPEG as photographs are commonly saved."""
OUTSIDE: Mapping[str, Sequence[tuple[str, Mapping[str, Any]]]] = MappingProxyType(
    {
        CLEAN: (),
        "motion": (MOTION,),
        "poisson": (POISSON,),
        "webp": (WEBP,),
        "unseen": (MOTION, POISSON, WEBP),
        "haze": (HAZE,),
        "low_light": LOW_LIGHT,
        "rain": (RAIN,),
        "camera": CAMERA,
        "saved": (SAVED,),
    }
)
"""Distortions outside the protocol by name: transforms of albumentations, one after the other, and their arguments."""
SATURATED = "saturated"
"""Moderate mixtures on patches of which a part is white or black (:mod:`restore_env.distortions.saturation`)."""
NAMES = (*SEVERITIES, ANY, LIGHT, SINGLE, SATURATED, *OUTSIDE)
"""All names."""


def distortion_of(name: str) -> dict[str, Any]:
    """The arguments of :class:`restore_env.Task` for one of :data:`NAMES`."""
    if name == SATURATED:
        return {"severity": "moderate", "saturation_prob": 1.0}
    return {"distortion": composed(name)} if name in OUTSIDE else {"severity": name}


def composed(name: str) -> Any:
    """The ``albumentations.Compose`` of one of :data:`OUTSIDE`."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations

    return albumentations.Compose(
        [getattr(albumentations, transform)(**arguments, p=1) for transform, arguments in OUTSIDE[name]]
    )
