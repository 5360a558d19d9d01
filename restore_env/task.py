"""What an environment is asked to do, as data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from restore_env.images.sources import ImagesLike, open_images
from restore_env.importing import import_made, import_named
from restore_env.metrics import Metric, resolve_metric
from restore_env.sampling import Compose, StartSampler
from restore_env.toolbox import Toolbox, ToolboxLike, resolve_toolbox

SAME_SIZE_TOOLBOX = "tools_zoo:default_toolbox"
"""The shipped toolbox of tasks that are all of the same size."""
DEFAULT_TOOLBOX = "sr_models:default_toolbox"
"""The shipped toolbox where images may be of low resolution: the same tools, and the super-resolvers."""
WITH_BACKEND = "tools_zoo.backends.network_tool:with_backend"
"""What lets another backend run a toolbox."""
DEFAULT_FACTORS = (1, 4)
"""The task factors of the shipped toolbox."""

DRAWS = ("host", "device")
"""Where patches can be distorted."""


def check_draws(draws: str) -> str:
    """Return ``draws`` if patches can be distorted there; raise ``ValueError`` that says where otherwise."""
    if draws not in DRAWS:
        raise ValueError(f"draws must be one of {', '.join(DRAWS)}, got {draws!r}")
    return draws


@dataclass(frozen=True)
class Task:
    """What an environment is asked to do: the arguments that the single and the vector environment share."""

    images: ImagesLike = None
    """Photographs: None (embedded ones), a folder, a file, a list of paths or arrays, or (degraded, target) pairs."""
    severity: str = "moderate"
    """Mixed distortion by RL-Restore's protocol, mild, moderate or severe; or "light", "any" or "single".

    Light mixtures are weaker than mild, any are light to severe, both of two distortions or three; single is one alone.
    In numbers, as "12" or "12-13": the sum of the three levels, minus 2; moderate is "12-17". Or several: "12,17".
    """
    distortion: Compose | str | None = None
    """An ``albumentations.Compose`` to be used in place of ``severity``, or the import string of what makes one,
    ``"package.module:factory"``."""
    patch_size: int = 63
    """Pixels of the degraded patch and of the observation."""
    upscale: Sequence[int] | None = None
    """Task factors to draw from: 1 same size, 4 low resolution. None: what the toolbox is for, the scales of its tools;
    so (1, 4) with the shipped one, and (1,) with tools of your own among which there is no super-resolver. Pairs have
    factors of their own."""
    max_steps: int = 3
    """Tools at most; part of the task, so the episode then terminates."""
    stop_if_worse: bool = False
    """End an episode when its PSNR falls below where it began."""
    reward: str | Metric = "psnr"
    """The quality whose gain is paid: "psnr" (dB), "ssim", "perceptual" (minus a distance of features), or a callable
    ``(images, targets) -> (N,)`` or its import string, ``"package.module:function"``; higher is better."""
    cost_weight: float = 0.0
    """Price of computation, in reward per GMAC (dB per GMAC with "psnr")."""
    toolbox: ToolboxLike | None = None
    """Tools: a :class:`Toolbox`, a list of tools, or the import string of a factory. None: the shipped ones, twelve
    tools if all tasks are of the same size, else these and the super-resolvers."""
    dtype: Literal["uint8", "float32"] = "uint8"
    """Of the observed image: uint8, clipped and rounded; or float32, the working image exactly, unclipped."""
    device: str | None = None
    """Where images are kept and tools run; None: where the toolbox is. A toolbox that is elsewhere is copied there."""
    backend: str | None = None
    """What runs the tools' networks on a CPU: "torch", "eager", "onnx" or "openvino"
    (:data:`tools_zoo.backends.network_tool.BACKENDS`); None: what runs the toolbox's already."""
    saturation_prob: float = 0.0
    """Share of the patches whose photograph is lightened or darkened until a part of the patch is white or black, as a
    sky is that was exposed too long; a very small part, in few of them
    (:func:`restore_env.distortions.saturation.saturation_curve`).
    Pairs stay as they are."""
    draws: Literal["host", "device"] = "host"
    """Where photographs' patches are distorted: on the host, one by one on threads; or on the toolbox's device, all of
    a step's at once, as many environments on a GPU need it. The same distribution; a seed gives the same photograph,
    place and levels, but other noise, and JPEG to a grey level or two. Not with ``distortion``."""
    cache_dir: str | os.PathLike[str] | None = None
    """Folder that keeps decoded photographs for the next process; None: a temporary one."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "upscale", self._checked_factors())
        for name in ("patch_size", "max_steps"):
            value = getattr(self, name)
            if int(value) != value or value < 1:
                raise ValueError(f"{name} must be a whole number of 1 or more, got {value!r}")
            object.__setattr__(self, name, int(value))
        if self.dtype not in ("uint8", "float32"):
            raise ValueError(f"dtype must be 'uint8' or 'float32', got {self.dtype!r}")
        check_draws(self.draws)
        if not isinstance(self.saturation_prob, (int, float, np.floating)) or not 0 <= self.saturation_prob <= 1:
            raise ValueError(f"saturation_prob must be a number in [0, 1], got {self.saturation_prob!r}")
        object.__setattr__(self, "saturation_prob", float(self.saturation_prob))
        if not 0 <= self.cost_weight < float("inf"):
            raise ValueError(f"cost_weight must be 0 or more, got {self.cost_weight!r}")
        resolve_metric(self.reward)
        _ = self.made_distortion

    def _checked_factors(self) -> tuple[int, ...]:
        if self.upscale is None and self.toolbox is None:
            return DEFAULT_FACTORS
        if self.upscale is None:
            return tuple(sorted({int(scale) for scale in self.made_toolbox.scales}))
        upscale = tuple(self.upscale) if isinstance(self.upscale, Sequence) else (self.upscale,)
        if not upscale or any(int(factor) != factor or factor < 1 for factor in upscale):
            raise ValueError(f"upscale must list whole factors such as (1, 4), got {self.upscale!r}")
        return tuple(int(factor) for factor in upscale)

    @property
    def factors(self) -> tuple[int, ...]:
        """``upscale`` once None is decided."""
        return tuple(self.upscale or ())

    @cached_property
    def made_toolbox(self) -> Toolbox:
        """``toolbox`` as what it stands for, on the task's device, run by its backend; made once."""
        shipped = DEFAULT_TOOLBOX if max(self.factors, default=1) > 1 else SAME_SIZE_TOOLBOX
        toolbox = resolve_toolbox(shipped if self.toolbox is None else self.toolbox, self.device)
        if self.backend is None:
            return toolbox
        made: Toolbox = import_named(WITH_BACKEND, "backend", "a toolbox's")(toolbox, self.backend)
        return made

    @cached_property
    def made_distortion(self) -> Compose | None:
        """``distortion`` as what it stands for; made once."""
        expected = "an albumentations.Compose, or the 'package.module:factory' of one"
        made, text = self.distortion, "distortion"
        if isinstance(made, str):
            text = f"distortion {made!r}"
            made = import_made(made, "distortion", expected, Compose)
        if made is not None and not isinstance(made, Compose):
            raise ValueError(f"{text}: expected {expected}, got {made!r}")
        return made

    def sampler(self) -> StartSampler:
        """Open the photographs and return what draws episode starts from them."""
        source = open_images(self.images, min_size=self.patch_size, cache_dir=self.cache_dir)
        distortion = self.severity if self.made_distortion is None else self.made_distortion
        tools = self.made_toolbox.device
        return StartSampler(
            source,
            distortion,
            patch_size=self.patch_size,
            factors=self.factors,
            device=tools if self.draws == "device" else None,
            saturation_prob=self.saturation_prob,
        )
