"""The blind distortion and its parts as albumentations transforms, for ``A.Compose`` and ``A.ReplayCompose``.

They call the functions of :mod:`sr_models.training.blind_distortion`. Their only random parameter is a seed, so a
replay gives the same result. ``ProtocolJpeg`` and ``BicubicDownscale`` of :mod:`restore_env.distortions.transforms`
are the remaining parts. One pass of Real-ESRGAN::

    A.Compose([RandomBlur(1), RandomResize(1), RandomNoise(1), ProtocolJpeg(JPEG_RANGE)])
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from albumentations.core.transforms_interface import BaseTransformInitSchema
from pydantic import Field

from restore_env.distortions.transforms import ProtocolTransform
from restore_env.images.arrays import Float, Pixels
from sr_models.training.blind_distortion import PASSES, Pass, blind, random_blur, random_noise, random_resize

_Number = Annotated[int, Field(ge=1, le=len(PASSES), strict=True)]


class BlindDistortion(ProtocolTransform):
    """Two passes of distortion, to a quarter of the size: :func:`sr_models.training.blind_distortion.blind`.

    Args:
        p: probability of applying the transform.

    Raises:
        ValueError: when called, an image whose height or width is no multiple of 4.
    """

    takes = ("uint8",)

    def __init__(self, p: float = 1.0) -> None:
        super().__init__(p=p)

    def get_params(self) -> dict[str, Any]:
        """Draw ``distortion_seed``."""
        return {"distortion_seed": self.py_random.getrandbits(32)}

    def distort_bytes(self, image: Pixels, params: dict[str, Any]) -> Pixels:
        """Distort."""
        return blind(image, np.random.default_rng(params["distortion_seed"]))


class _PassTransform(ProtocolTransform):
    """A part of one pass.

    Args:
        number: 1 or 2, the pass whose probabilities and bounds apply.
        p: probability of applying the transform.

    Raises:
        ValueError: another number.
    """

    class InitSchema(BaseTransformInitSchema):
        """Validation of the arguments."""

        number: _Number

    def __init__(self, number: int = 1, p: float = 1.0) -> None:
        super().__init__(p=p)
        self.number = number

    @property
    def seed_name(self) -> str:
        """Name and number, so that the same part of the two passes is drawn independently."""
        return f"{type(self).__name__} {self.number}"

    def get_params(self) -> dict[str, Any]:
        """Draw ``part_seed``."""
        return {"part_seed": self.py_random.getrandbits(32)}

    def distort_floats(self, image: Float, params: dict[str, Any]) -> Float:
        """Distort."""
        return self.distort_part(image, PASSES[self.number - 1], np.random.default_rng(params["part_seed"]))

    def distort_part(self, image: Float, bounds: Pass, rng: np.random.Generator) -> Float:
        """Distort."""
        raise NotImplementedError


class RandomBlur(_PassTransform):
    """Blur: :func:`sr_models.training.blind_distortion.random_blur`. Arguments: ``number``, ``p``."""

    def distort_part(self, image: Float, bounds: Pass, rng: np.random.Generator) -> Float:
        """Distort."""
        return random_blur(image, bounds, rng)


class RandomResize(_PassTransform):
    """Resize: :func:`sr_models.training.blind_distortion.random_resize`. Arguments: ``number``, ``p``."""

    def distort_part(self, image: Float, bounds: Pass, rng: np.random.Generator) -> Float:
        """Distort."""
        return random_resize(image, bounds, rng)


class RandomNoise(_PassTransform):
    """Noise: :func:`sr_models.training.blind_distortion.random_noise`. Arguments: ``number``, ``p``."""

    def distort_part(self, image: Float, bounds: Pass, rng: np.random.Generator) -> Float:
        """Distort."""
        return random_noise(image, bounds, rng)
