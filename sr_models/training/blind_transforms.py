"""The blind distortion and its parts as albumentations transforms, for ``A.Compose`` and ``A.ReplayCompose``.

They call the functions of :mod:`sr_models.training.blind_distortion`. Their only random parameter is a seed, so a
replay gives the same result. ``ProtocolJpeg`` and ``BicubicDownscale`` of :mod:`restore_env.distortions.transforms`
are the remaining parts. One pass of Real-ESRGAN::

    A.Compose([RandomBlur(1), RandomResize(1), RandomNoise(1), ProtocolJpeg(JPEG_RANGE)])
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar

import numpy as np
from albumentations.core.transforms_interface import BaseTransformInitSchema
from pydantic import Field

from restore_env.distortions.transforms import ProtocolTransform
from restore_env.images.arrays import Float, Pixels
from sr_models.training.blind_distortion import PASSES, blind, random_blur, random_noise, random_resize

_Number = Annotated[int, Field(ge=1, le=len(PASSES), strict=True)]


class BlindDistortion(ProtocolTransform):
    """Two passes of distortion, to a quarter of the size: :func:`sr_models.training.blind_distortion.blind`.

    Argument: ``p``, the probability of applying it. Heights and widths must be multiples of 4.
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
    """A part of one pass, a function of :mod:`sr_models.training.blind_distortion`.

    Args:
        number: 1 or 2, the pass whose probabilities and bounds apply.
        p: probability of applying the transform.

    Raises:
        ValueError: another number.
    """

    class InitSchema(BaseTransformInitSchema):
        """Validation of the arguments."""

        number: _Number

    part: ClassVar[Callable[..., Float]]

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
        return self.part(image, PASSES[self.number - 1], np.random.default_rng(params["part_seed"]))


class RandomBlur(_PassTransform):
    """A random blur. Arguments: ``number``, ``p``."""

    part = staticmethod(random_blur)


class RandomResize(_PassTransform):
    """A random resize. Arguments: ``number``, ``p``."""

    part = staticmethod(random_resize)


class RandomNoise(_PassTransform):
    """Random noise. Arguments: ``number``, ``p``."""

    part = staticmethod(random_noise)
