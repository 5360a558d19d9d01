"""A task as data: the arguments of the environments."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from restore_env.distortions.protocol import check_severity
from restore_env.episodes.observation import observation_keys
from restore_env.errors import ImageRestoreError
from restore_env.images.sources import ImagesLike
from restore_env.metrics import Metric
from restore_env.sampling import Compose
from restore_env.toolbox import ToolboxLike

MAX_STEPS = 3
"""Tools in an episode, at most, unless a task says otherwise."""
DRAWS = ("host", "device")
"""Where patches can be distorted."""


def check_draws(draws: str) -> str:
    """Return ``draws`` if patches can be distorted there; raise ``ValueError`` that says where otherwise."""
    if draws not in DRAWS:
        raise ImageRestoreError(f"draws must be one of {', '.join(DRAWS)}, got {draws!r}")
    return draws


@dataclass(frozen=True, eq=False)
class Task:
    """The arguments that the single and the vector environment share, checked but not opened.

    :mod:`restore_env.resolve` opens what they name: toolbox, distortion, reward metric and photographs.

    Raises:
        ValueError: a value that no environment accepts.
    """

    images: ImagesLike = None
    """Photographs: None (embedded ones), a folder, a file, a list of paths or arrays, or (distorted, target) pairs."""
    severity: str = "mixed"
    """Distribution of the distortions.

    "mixed" draws from all rows of :data:`restore_env.distortions.mixed.ROWS`, which are distortions as images have
    them; a row's name, such as "sensor", draws from that row; "composite" draws photographs whose halves or quadrants
    have different distortions of "mixed". By RL-Restore's protocol: "mild", "moderate" or "severe",
    all with blur, noise and JPEG; "light" is weaker than "mild"; "any" is "light" to "severe", with two or three
    distortions; "single" is one distortion alone. In numbers, such as "12" or "12-13": the sum of the three levels,
    minus 2; "moderate" is "12-17"; several of these are separated by commas: "12,17". "any+single" is either, equally
    often.
    """
    distortion: Compose | str | None = None
    """An ``albumentations.Compose`` in place of ``severity``, or the import string of a factory of one,
    ``"package.module:factory"``."""
    patch_size: int = 63
    """Side of the distorted patch and of the observed image, pixels."""
    upscale: Sequence[int] | None = None
    """Upscale factors to draw from: 1 same size, 4 low resolution. None: the scales of the toolbox's tools, so (1, 4)
    with the shipped tools and (1,) with tools of your own without a super-resolver. Pairs have their own factors."""
    max_steps: int = None  # type: ignore[assignment]  # is a number afterwards
    """Maximal number of tools; the episode terminates after them. None: 3, or the depth of the level set."""
    stop_if_worse: bool = False
    """End an episode when its PSNR falls below the PSNR at its start."""
    reward: str | Metric = "psnr"
    """The quality whose gain is the reward: "psnr" (dB), "ssim", "perceptual" (minus a distance of features), or a
    callable ``(images, targets) -> (N,)`` or its import string, ``"package.module:function"``; higher is better."""
    cost_weight: float = 0.0
    """Price of computation, in reward per GMAC (dB per GMAC with "psnr")."""
    toolbox: ToolboxLike | None = None
    """Tools: a :class:`Toolbox`, a list of tools, the name of a shipped toolbox ("classic"), a folder, or the import
    string of a factory. None: the twelve shipped tools, and the super-resolvers unless ``upscale`` is (1,)."""
    observation: str | Sequence[str] = "image"
    """What is observed: "image" (the patch), "spectrum" (257 numbers), or "both", each with ``last_action``,
    ``action_mask`` and ``steps_left``; or a list of keys, such as ("image", "steps_left")."""
    flatten: bool = False
    """Return the observation as one row of float32, the previous action one-hot; or ("image",) as the image itself."""
    info: Literal["numbers", "full"] = "numbers"
    """What infos hold: numbers and arrays of fixed shape, or also names and the distortion ("full")."""
    dtype: Literal["uint8", "float32"] = "uint8"
    """Type of the observed image: uint8, clipped and rounded; or float32, the exact working image, not clipped."""
    device: str | None = None
    """Device of images and tools; None: the toolbox's. A toolbox on another device is copied there."""
    backend: str | None = None
    """Runs the tools' networks on a CPU: a key of :data:`tools_zoo.backends.network_tool.BACKENDS`; None: the
    toolbox's own."""
    saturation_prob: float = 0.0
    """Probability that a photograph is lightened or darkened until a part of its patch is white or black, as an
    overexposed sky is (:func:`restore_env.distortions.saturation.saturation_curve`). Pairs are not changed."""
    draws: Literal["host", "device"] = "host"
    """Where photographs' patches are distorted: on the host, one by one on threads; or on the toolbox's device, all of
    a step in one batch, for many environments on a GPU. The distribution is the same; a seed gives the same photograph,
    place and levels, but other noise, and JPEG to a grey level or two. Not with ``distortion``."""
    levels: str | os.PathLike[str] | None = None
    """A level set (:mod:`restore_env.levels`), a path or the name of a packaged one, such as "pure-train": episodes
    start from its levels, and what tools do is looked up. It determines toolbox, reward and what else was computed;
    ``images`` then says where its photographs are now."""
    cache_dir: str | os.PathLike[str] | None = None
    """Folder that keeps decoded photographs for the next process; None: a temporary one."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "upscale", self._checked_factors())
        object.__setattr__(self, "severity", check_severity(self.severity))
        if self.max_steps is None and self.levels is None:
            object.__setattr__(self, "max_steps", MAX_STEPS)
        for name in ("patch_size", "max_steps"):
            value = getattr(self, name)
            if value is None and name == "max_steps":
                continue  # the level set determines it
            if int(value) != value or value < 1:
                raise ImageRestoreError(f"{name} must be a whole number of 1 or more, got {value!r}")
            object.__setattr__(self, name, int(value))
        if self.dtype not in ("uint8", "float32"):
            raise ImageRestoreError(f"dtype must be 'uint8' or 'float32', got {self.dtype!r}")
        keys = observation_keys(self.observation)
        if self.flatten and "image" in keys and len(keys) > 1:
            raise ImageRestoreError('flatten joins numbers, not images: use observation="spectrum", or ("image",)')
        if self.info not in ("numbers", "full"):
            raise ImageRestoreError(f"info must be 'numbers' or 'full', got {self.info!r}")
        check_draws(self.draws)
        if not isinstance(self.saturation_prob, (int, float, np.floating)) or not 0 <= self.saturation_prob <= 1:
            raise ImageRestoreError(f"saturation_prob must be a number in [0, 1], got {self.saturation_prob!r}")
        object.__setattr__(self, "saturation_prob", float(self.saturation_prob))
        if not 0 <= self.cost_weight < float("inf"):
            raise ImageRestoreError(f"cost_weight must be 0 or more, got {self.cost_weight!r}")

    def _checked_factors(self) -> tuple[int, ...] | None:
        if self.upscale is None:
            return None
        upscale = tuple(self.upscale) if isinstance(self.upscale, Sequence) else (self.upscale,)
        if not upscale or any(int(factor) != factor or factor < 1 for factor in upscale):
            raise ImageRestoreError(f"upscale must list whole factors such as (1, 4), got {self.upscale!r}")
        return tuple(int(factor) for factor in upscale)
