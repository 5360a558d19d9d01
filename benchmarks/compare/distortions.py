"""The distortions that methods are compared on: the protocol's, and others.

Outside the protocol, the agents ``photo`` and ``super`` were trained on "light", "any" and "single", some tools on
"single", and the default's agent and two main tools on "saturated". ``photo`` was also trained on a camera's
distortions (:func:`restore_env.distortions.camera.camera`), which resemble "camera" and "saved".
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from benchmarks.baselines.catalog import CLEAN
from restore_env.distortions.protocol import ANY, LIGHT, SEVERITIES, SINGLE

if TYPE_CHECKING:
    from restore_env.sampling import Compose

CAMERA = "camera"
"""The name of noise and compression like a small camera's."""
MOTION_PIXELS = (5, 15)
"""Length of the motion that blurs, uniform, at any angle, centred."""
POISSON_SCALE = (0.005, 0.03)
"""Strength of photon noise in linear light (albumentations' ``ShotNoise``)."""
WEBP_QUALITY = (5, 40)
SAVED_QUALITY = (75, 95)
"""JPEG as photographs are commonly saved, without any other distortion."""
CAMERA_PHOTONS, CAMERA_READING, CAMERA_QUALITY = (0.01, 0.01), (0.012, 0.012), (70, 70)
"""A small camera in the dark: photon noise in linear light, reading noise (of 1), then JPEG; the first grows with
brightness, the second does not (Foi et al., TIP 2008)."""


def _compose(*names: str) -> Callable[[], Compose]:
    def build() -> Compose:
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        import albumentations

        made = {
            "motion": lambda: albumentations.MotionBlur(
                blur_limit=MOTION_PIXELS, allow_shifted=False, direction_range=(0, 0), p=1
            ),
            "poisson": lambda: albumentations.ShotNoise(scale_range=POISSON_SCALE, p=1),
            "webp": lambda: albumentations.ImageCompression(compression_type="webp", quality_range=WEBP_QUALITY, p=1),
            "saved": lambda: albumentations.ImageCompression(quality_range=SAVED_QUALITY, p=1),
            "photons": lambda: albumentations.ShotNoise(scale_range=CAMERA_PHOTONS, p=1),
            "reading": lambda: albumentations.GaussNoise(std_range=CAMERA_READING, p=1),
            "jpeg": lambda: albumentations.ImageCompression(quality_range=CAMERA_QUALITY, p=1),
        }
        composed: Compose = albumentations.Compose([made[name]() for name in names])
        return composed

    return build


OUTSIDE: Mapping[str, Callable[[], Compose]] = MappingProxyType(
    {
        CLEAN: _compose(),
        "motion": _compose("motion"),
        "poisson": _compose("poisson"),
        "webp": _compose("webp"),
        "unseen": _compose("motion", "poisson", "webp"),
        CAMERA: _compose("photons", "reading", "jpeg"),
        "saved": _compose("saved"),
    }
)
"""Distortions outside the protocol by name; "unseen" is motion, poisson, webp one after the other, "clean" none."""
SATURATED = "saturated"
"""Moderate mixtures on patches of which a part is white or black (:mod:`restore_env.distortions.saturation`)."""
NAMES = (*SEVERITIES, ANY, LIGHT, SINGLE, SATURATED, *OUTSIDE)
"""All names."""


def distortion_of(name: str) -> dict[str, Any]:
    """The arguments of :class:`restore_env.Task` for one of :data:`NAMES`."""
    if name == SATURATED:
        return {"severity": "moderate", "saturation_prob": 1.0}
    return {"distortion": OUTSIDE[name]()} if name in OUTSIDE else {"severity": name}
