"""The protocol's distortions as albumentations transforms, to compose, replay and serialise with ``A.Compose``.

They call the functions of :mod:`restore_env.distortions.protocol` and take RGB images ``(H, W, 3)``, uint8 or float32
in [0, 1] (:class:`MixedDistortion`: uint8 alone). The result has the type of the input: uint8 is rounded and clipped
to 8 bits after every transform, float32 keeps its precision from one to the next and may leave [0, 1].

Albumentations gives every transform of a ``Compose`` the same seed. Each transform here mixes its name into it, so
that the blur, noise and JPEG of one ``Compose`` are independent.
"""

from __future__ import annotations

import os
import zlib
from typing import Annotated, Any, ClassVar

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else importing it asks PyPI for a newer version

import numpy as np
import numpy.typing as npt
from albumentations import ImageOnlyTransform
from albumentations.core.transforms_interface import BaseTransformInitSchema
from pydantic import AfterValidator, Field

from restore_env.distortions.protocol import (
    BLUR_EDGES,
    JPEG_EDGES,
    NOISE_EDGES,
    Levels,
    check_severity,
    distort,
    downscale,
    draw_levels,
    gaussian_blur,
    gaussian_noise,
    jpeg,
    quantize,
)
from restore_env.images.arrays import Float, Pixels, to_float

Image = npt.NDArray[Any]


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"the range {bounds} is empty: its lower bound comes first")
    return bounds


_Sigma = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
_Quality = Annotated[int, Field(ge=1, le=100, strict=True)]
_Factor = Annotated[int, Field(ge=1, strict=True)]
_SigmaRange = Annotated[tuple[_Sigma, _Sigma], AfterValidator(_ordered)]
_QualityRange = Annotated[tuple[_Quality, _Quality], AfterValidator(_ordered)]
_Severity = Annotated[str, AfterValidator(check_severity)]


class ProtocolTransform(ImageOnlyTransform):
    """Base of the transforms: checks the input, and seeds each transform independently."""

    takes: ClassVar[tuple[str, ...]] = ("uint8", "float32")

    @property
    def seed_name(self) -> str:
        """Mixed into the seed: transforms of one ``Compose`` are independent if it differs."""
        return type(self).__name__

    def set_random_seed(self, seed: int | None) -> None:
        """Seed the transform's generators with ``seed`` and the transform's name; None draws a seed."""
        own_seed = None if seed is None else zlib.crc32(f"{self.seed_name} {seed}".encode())
        super().set_random_seed(own_seed)

    def apply(self, img: Image, **params: Any) -> Image:
        """Distort one image with the parameters that were drawn.

        Raises:
            ValueError: an image of another shape or type than the transform takes.
        """
        if img.ndim != 3 or img.shape[2] != 3 or img.dtype.name not in self.takes:
            raise ValueError(
                f"{type(self).__name__} takes RGB images (H, W, 3) of {' or '.join(self.takes)},"
                f" got {img.dtype} of shape {img.shape}"
            )
        if img.dtype == np.uint8:
            return self.distort_bytes(img, params)
        return self.distort_floats(img, params)

    def distort_floats(self, image: Float, params: dict[str, Any]) -> Float:
        """Distort a float32 image."""
        raise NotImplementedError

    def distort_bytes(self, image: Pixels, params: dict[str, Any]) -> Pixels:
        """Distort a uint8 image: unless overridden, as float32, then rounded and clipped."""
        return quantize(self.distort_floats(to_float(image), params))


class _SigmaSchema(BaseTransformInitSchema):
    sigma_range: _SigmaRange


class _FactorSchema(BaseTransformInitSchema):
    factor: _Factor


class ProtocolBlur(ProtocolTransform):
    """Gaussian blur with a 21x21 kernel, the edge replicated.

    Args:
        sigma_range: bounds of sigma in pixels, drawn uniformly; 0 leaves the image as it is.
        p: probability of applying the transform.

    Raises:
        ValueError: a bound that is negative or not finite, or an empty range.
    """

    InitSchema = _SigmaSchema

    def __init__(self, sigma_range: tuple[float, float] = (BLUR_EDGES[0], BLUR_EDGES[-1]), p: float = 1.0) -> None:
        super().__init__(p=p)
        self.sigma_range = sigma_range

    def get_params(self) -> dict[str, Any]:
        """Draw ``sigma``."""
        return {"sigma": self.py_random.uniform(*self.sigma_range)}

    def distort_floats(self, image: Float, params: dict[str, Any]) -> Float:
        """Blur."""
        return gaussian_blur(image, params["sigma"])


class ProtocolNoise(ProtocolTransform):
    """White Gaussian noise. The seed of the noise is a parameter, so that a replay adds the same noise.

    Args:
        sigma_range: bounds of sigma in grey levels of 255 (for float32 as well), drawn uniformly.
        p: probability of applying the transform.

    Raises:
        ValueError: a bound that is negative or not finite, or an empty range.
    """

    InitSchema = _SigmaSchema

    def __init__(self, sigma_range: tuple[float, float] = (NOISE_EDGES[0], NOISE_EDGES[-1]), p: float = 1.0) -> None:
        super().__init__(p=p)
        self.sigma_range = sigma_range

    def get_params(self) -> dict[str, Any]:
        """Draw ``sigma`` and ``noise_seed``."""
        return {"sigma": self.py_random.uniform(*self.sigma_range), "noise_seed": self.py_random.getrandbits(32)}

    def distort_floats(self, image: Float, params: dict[str, Any]) -> Float:
        """Add noise."""
        return gaussian_noise(image, params["sigma"], np.random.default_rng(params["noise_seed"]))


class ProtocolJpeg(ProtocolTransform):
    """Baseline JPEG (4:2:0), compressed and decompressed; float32 is rounded and clipped to 8 bits on the way.

    Args:
        quality_range: bounds of the quality, 1 to 100, drawn uniformly, both included.
        p: probability of applying the transform.

    Raises:
        ValueError: a bound that is no whole number from 1 to 100, or an empty range.
    """

    class InitSchema(BaseTransformInitSchema):
        """Validation of the arguments."""

        quality_range: _QualityRange

    def __init__(
        self, quality_range: tuple[int, int] = (int(JPEG_EDGES[-1]), int(JPEG_EDGES[0])), p: float = 1.0
    ) -> None:
        super().__init__(p=p)
        self.quality_range = quality_range

    def get_params(self) -> dict[str, Any]:
        """Draw ``quality``."""
        return {"quality": self.py_random.randint(*self.quality_range)}

    def distort_floats(self, image: Float, params: dict[str, Any]) -> Float:
        """Compress the image rounded to 8 bits."""
        return to_float(self.distort_bytes(quantize(image), params))

    def distort_bytes(self, image: Pixels, params: dict[str, Any]) -> Pixels:
        """Compress."""
        return jpeg(image, params["quality"])


class BicubicDownscale(ProtocolTransform):
    """Antialiased bicubic downscaling (a = -0.5, as MATLAB's imresize). Only the image shrinks, not masks or boxes.

    Args:
        factor: whole number; heights and widths must be multiples of it.
        p: probability of applying the transform.

    Raises:
        ValueError: a factor that is no whole number of 1 or more; when called, an image that is no multiple of it.
    """

    InitSchema = _FactorSchema

    def __init__(self, factor: int = 4, p: float = 1.0) -> None:
        super().__init__(p=p)
        self.factor = factor

    def distort_floats(self, image: Float, params: dict[str, Any]) -> Float:
        """Downscale."""
        return downscale(image, self.factor)


class MixedDistortion(ProtocolTransform):
    """The protocol's mixed distortion: blur, downscaling if asked for, noise and JPEG, with levels drawn together.

    Unlike the single transforms in a row it rounds to 8 bits only once, before the JPEG, as the environment does.

    Args:
        severity: "mild", "moderate" or "severe"; or "light", "any" or "single"; or a range of severities, "12-13"; or
            several, "12,17".
        factor: 4 for the low-resolution task (heights and widths must be multiples), 1 for the same size.
        p: probability of applying the transform.

    Raises:
        ValueError: an unknown severity, or a factor that is no whole number of 1 or more.
    """

    takes = ("uint8",)

    class InitSchema(_FactorSchema):
        """Validation of the arguments."""

        severity: _Severity

    def __init__(self, severity: str = "moderate", factor: int = 1, p: float = 1.0) -> None:
        super().__init__(p=p)
        self.severity = severity
        self.factor = factor

    def get_params(self) -> dict[str, Any]:
        """Draw the fields of :class:`~restore_env.distortions.protocol.Levels` and ``noise_seed``."""
        levels = draw_levels(self.severity, self.random_generator)
        return {**levels.as_dict(), "noise_seed": self.py_random.getrandbits(32)}

    def distort_bytes(self, image: Pixels, params: dict[str, Any]) -> Pixels:
        """Distort."""
        levels = Levels(params["blur_sigma"], params["noise_sigma"], params["jpeg_quality"])
        return distort(image, levels, np.random.default_rng(params["noise_seed"]), self.factor)
