"""Distortions of photographs as they come: sensor noise, film grain, chroma noise, defocus, re-saving.

Each is a sequence of steps on a region around a patch, float32 RGB in [0, 1]. A step's fields are its strengths; its
noise comes from the random generator that it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from restore_env.distortions.protocol import MCU, Levels, downscale, gaussian_blur, quantize
from restore_env.distortions.saturation import Curve, apply_curve
from restore_env.images.arrays import Float, Pixels, to_float

CONTEXT = 2 * MCU
"""Pixels around a patch that are distorted with it, where the image has them; a multiple of JPEG's blocks."""
GAMMA = 2.2
"""Of the encoding of the displayed image."""
_BAYER = (cv2.COLOR_BayerBG2RGB, cv2.COLOR_BayerGB2RGB, cv2.COLOR_BayerGR2RGB, cv2.COLOR_BayerRG2RGB)
_BAYER_EDGES = (
    *(cv2.COLOR_BayerBG2RGB_EA, cv2.COLOR_BayerGB2RGB_EA),
    *(cv2.COLOR_BayerGR2RGB_EA, cv2.COLOR_BayerRG2RGB_EA),
)
_PEDESTAL, _RANGE = 0.1, 0.8  # of 16 bits: keeps noise below black and above white until the image is displayed
_FROM_CHROMA = np.array([[0.0, -0.344136, 1.772], [1.402, -0.714136, 0.0]], dtype=np.float32)


class Step(Protocol):
    """One part of a distortion: a dataclass of plain numbers and strings."""

    @property
    def levels(self) -> Levels:
        """The protocol's distortion that comes closest to it."""

    def apply(self, image: Float, rng: np.random.Generator) -> Float:
        """Distort an image ``(H, W, 3)``."""


@dataclass(frozen=True)
class Defocus:
    """Convolution with a disk."""

    radius: float
    """Pixels."""

    @property
    def levels(self) -> Levels:
        """A Gaussian of the same variance."""
        return Levels(blur_sigma=self.radius / 2)

    def apply(self, image: Float, rng: np.random.Generator) -> Float:
        """Blur."""
        half = int(np.ceil(self.radius))
        away = np.hypot(*np.mgrid[-half : half + 1, -half : half + 1])
        disk = np.clip(self.radius + 0.5 - away, 0, 1)
        return np.asarray(cv2.filter2D(image, -1, disk / disk.sum(), borderType=cv2.BORDER_REPLICATE))


@dataclass(frozen=True)
class Blur:
    """Gaussian blur."""

    sigma: float
    """Pixels."""

    @property
    def levels(self) -> Levels:
        """The same blur."""
        return Levels(blur_sigma=self.sigma)

    def apply(self, image: Float, rng: np.random.Generator) -> Float:
        """Blur."""
        return gaussian_blur(image, self.sigma)


@dataclass(frozen=True)
class SensorNoise:
    """Photon and read noise on a colour filter array in linear light, then demosaicing: the noise is correlated.

    Source: the noise model of Foi et al., "Practical Poissonian-Gaussian noise modeling", TIP 2008.
    """

    shot: float
    """Variance a unit of linear light."""
    read: float
    """Standard deviation, in linear light."""
    red: float
    """White balance: gain of red."""
    blue: float
    demosaicing: Literal["bilinear", "edges"]
    """Interpolation of the missing colours: OpenCV's bilinear or edge-aware one."""
    oversampling: float = 1.0
    """The sensor has so many times more pixels a side; the image is resized afterwards."""
    phase: int = 0
    """Which of the four arrangements of the colour filters."""

    @property
    def levels(self) -> Levels:
        """The noise of a photograph of mean brightness; fitted to 2 % of the measured noise of photographs."""
        variance = 0.27 * self.shot + 7.2 * self.read**2
        return Levels(noise_sigma=255 * float(np.sqrt(variance)) / self.oversampling**0.5)

    def apply(self, image: Float, rng: np.random.Generator) -> Float:
        """Expose, demosaic, and display."""
        height, width = image.shape[:2]
        side = [2 * round(length * self.oversampling / 2) for length in (width, height)]
        scene = cv2.resize(image.clip(0, 1), side, interpolation=cv2.INTER_CUBIC)
        gains = np.array([self.red, 1.0, self.blue], dtype=np.float32)
        light = scene.clip(0, 1) ** np.float32(GAMMA) / gains
        raw = self._mosaic(light)
        deviation = np.sqrt(self.shot * raw + self.read**2, dtype=np.float32)
        raw = raw + rng.standard_normal(raw.shape, dtype=np.float32) * deviation
        stored = np.rint((raw * _RANGE + _PEDESTAL).clip(0, 1) * 65535).astype(np.uint16)
        codes = _BAYER_EDGES if self.demosaicing == "edges" else _BAYER
        colours = (cv2.cvtColor(stored, codes[self.phase]) / np.float32(65535) - _PEDESTAL) / _RANGE * gains
        shown = colours.clip(0, 1).astype(np.float32) ** np.float32(1 / GAMMA)
        return np.asarray(cv2.resize(shown, (width, height), interpolation=cv2.INTER_AREA), dtype=np.float32)

    def _mosaic(self, light: Float) -> Float:
        """Keep one colour a pixel: red, green, green and blue in squares of two."""
        row, column = divmod(self.phase, 2)
        raw = light[..., 1].copy()
        raw[row::2, column::2] = light[row::2, column::2, 0]
        raw[1 - row :: 2, 1 - column :: 2] = light[1 - row :: 2, 1 - column :: 2, 2]
        return np.asarray(raw)


@dataclass(frozen=True)
class Grain:
    """Noise of a grain size, strongest in the midtones, as of film."""

    sigma: float
    """Standard deviation in midtones, grey levels of 255."""
    size: float
    """Gaussian blur of the noise, pixels; 0: independent pixels."""
    colour: float
    """0: the same in all channels; 1: independent ones."""

    @property
    def levels(self) -> Levels:
        """Independent noise as strong."""
        return Levels(noise_sigma=self.sigma)

    def apply(self, image: Float, rng: np.random.Generator) -> Float:
        """Add grain."""
        grey = _field(rng, (*image.shape[:2], 1), self.size)
        noise = grey * np.float32(np.sqrt(1 - self.colour))
        if self.colour > 0:
            noise = noise + _field(rng, image.shape, self.size) * np.float32(np.sqrt(self.colour))
        tone = image.mean(axis=2, keepdims=True).clip(0, 1)
        return np.asarray(image + noise * (4 * tone * (1 - tone)).clip(0.3, 1) * np.float32(self.sigma / 255))


@dataclass(frozen=True)
class ChromaNoise:
    """Coloured blotches: noise of a size in the two chroma channels alone."""

    sigma: float
    """Standard deviation, grey levels of 255."""
    size: float
    """Gaussian blur of the noise, pixels."""

    @property
    def levels(self) -> Levels:
        """Independent noise as strong."""
        return Levels(noise_sigma=self.sigma)

    def apply(self, image: Float, rng: np.random.Generator) -> Float:
        """Add chroma noise."""
        field = _field(rng, (*image.shape[:2], 2), self.size) * np.float32(self.sigma / 255)
        return np.asarray(image + field @ _FROM_CHROMA)


@dataclass(frozen=True)
class Denoise:
    """What cameras do to noise: a bilateral filter."""

    strength: float
    """Grey levels of 255 below which neighbours are averaged."""
    levels: ClassVar[Levels] = Levels()

    def apply(self, image: Float, rng: np.random.Generator) -> Float:
        """Smooth."""
        return np.asarray(cv2.bilateralFilter(image, 5, self.strength / 255, 1.5))


@dataclass(frozen=True)
class Sharpen:
    """Unsharp masking."""

    amount: float
    sigma: float
    """Pixels."""
    levels: ClassVar[Levels] = Levels()

    def apply(self, image: Float, rng: np.random.Generator) -> Float:
        """Sharpen."""
        blurred = gaussian_blur(image, self.sigma)
        return np.asarray((image + np.float32(self.amount) * (image - blurred)).clip(0, 1))


@dataclass(frozen=True)
class Save:
    """Lossy compression."""

    kind: Literal["jpg", "webp"]
    quality: int
    shift: int = 0
    """Pixels by which the picture was cut before it was saved: it moves the grid of blocks."""

    @property
    def levels(self) -> Levels:
        """JPEG of the same quality."""
        return Levels(jpeg_quality=self.quality)

    def apply(self, image: Float, rng: np.random.Generator) -> Float:
        """Compress and decompress."""
        pixels = np.pad(quantize(image), ((self.shift, 0), (self.shift, 0), (0, 0)), mode="edge")[..., ::-1]
        option = cv2.IMWRITE_JPEG_QUALITY if self.kind == "jpg" else cv2.IMWRITE_WEBP_QUALITY
        ok, code = cv2.imencode(f".{self.kind}", np.ascontiguousarray(pixels), [option, self.quality])
        decoded = cv2.imdecode(code, cv2.IMREAD_COLOR) if ok else None
        if decoded is None:
            raise ValueError(f"cannot encode an image of shape {image.shape} as {self.kind}")
        return to_float(np.ascontiguousarray(decoded[self.shift :, self.shift :, ::-1]))


@dataclass(frozen=True)
class Photographic:
    """A drawn distortion: its name and its steps."""

    name: str
    steps: Sequence[Step] = ()

    @property
    def strengths(self) -> tuple[float, float, float]:
        """About how strong blur, noise and compression are, on the protocol's scale (``Levels.strengths``)."""
        blur, noise, compression = zip((0.0, 0.0, 0.0), *(step.levels.strengths for step in self.steps), strict=True)
        return max(blur), max(noise), max(compression)

    def as_dict(self) -> dict[str, Any]:
        """The name and all strengths as plain numbers and strings; those of a second save begin with "save2"."""
        strengths: dict[str, Any] = {"kind": self.name}
        kinds = [type(step).__name__.lower() for step in self.steps]
        for number, (kind, step) in enumerate(zip(kinds, self.steps, strict=True)):
            earlier = kinds[:number].count(kind)
            name = f"{kind}{earlier + 1}" if earlier else kind
            strengths |= {f"{name}_{key}": value for key, value in vars(step).items()}
        return strengths

    def patch(
        self,
        image: Pixels,
        window: tuple[int, int, int, int],
        rng: np.random.Generator,
        factor: int = 1,
        curve: Curve | None = None,
    ) -> Pixels:
        """Cut a window out of the distorted image, as :func:`restore_env.distortions.protocol.distort_patch` does."""
        spans, inside = [], []
        for start, length, limit in zip(window[:2], window[2:], image.shape[:2], strict=True):
            first = max(0, start - CONTEXT) // MCU * MCU
            last = min(limit // factor, start + length + CONTEXT)
            spans.append(slice(first * factor, last * factor))
            inside.append(slice(start - first, start - first + length))
        region = downscale(to_float(apply_curve(image[spans[0], spans[1]], curve)), factor)
        for step in self.steps:
            region = step.apply(region, rng)
        return np.ascontiguousarray(quantize(region)[inside[0], inside[1]])


def _field(rng: np.random.Generator, shape: tuple[int, ...], size: float) -> npt.NDArray[np.float32]:
    """Gaussian noise of standard deviation 1, blurred by ``size`` pixels: ``shape``."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    if size <= 0:
        return noise
    blurred = cv2.GaussianBlur(noise, (0, 0), size, borderType=cv2.BORDER_REFLECT).reshape(shape)
    taps = cv2.getGaussianKernel(2 * int(np.ceil(4 * size)) + 1, size)
    return np.asarray(blurred / np.float32((taps**2).sum()))
