"""What a policy observes: a patch or its spectrum, the previous action, the allowed actions and the steps left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from torch import Tensor

from restore_env.episodes.spectrum import COMPACT_SIZE, HIGHEST, LOWEST, compact_codes, decoded
from restore_env.errors import ImageRestoreError
from restore_env.images.arrays import quantized, to_hwc

Observation = dict[str, npt.NDArray[Any]]
"""Keys of :data:`KINDS`; the first axis of each array is the batch."""
ImageType = Literal["uint8", "float32"]
"""Type of the observed image: uint8, clipped and rounded; or float32, the exact working image."""

EPISODE_KEYS = ("last_action", "action_mask", "steps_left")
"""What is observed of an episode besides its image."""
KINDS = {
    "image": ("image", *EPISODE_KEYS),
    "spectrum": ("spectrum", *EPISODE_KEYS),
    "both": ("image", "spectrum", *EPISODE_KEYS),
}
"""Keys of an observation, by the name of its kind."""


def observation_keys(observation: str | Sequence[str]) -> tuple[str, ...]:
    """The keys of an observation: those of a kind, or a selection of keys.

    Raises:
        ValueError: an unknown kind or key, or none.
    """
    if isinstance(observation, str):
        keys = KINDS.get(observation, ())
    else:
        keys = tuple(observation) if isinstance(observation, Sequence) else ()
    if not keys or len(set(keys)) < len(keys) or not set(keys) <= set(KINDS["both"]):
        raise ImageRestoreError(
            f"observation must be one of {', '.join(KINDS)}, or a list of {', '.join(KINDS['both'])};"
            f" got {observation!r}"
        )
    return keys


@dataclass(frozen=True)
class Viewer:
    """Turns working images into what is observed of them.

    What comes of it are *views*: arrays by name, ``image`` ``(N, P, P, 3)`` and ``spectrum`` ``(N, 257)``, the latter
    as codes that :func:`restore_env.episodes.spectrum.decoded` turns into numbers.
    """

    keys: tuple[str, ...]
    patch_size: int
    dtype: ImageType

    def empty(self, n: int) -> Observation:
        """Views of ``n`` images, all zero."""
        size = self.patch_size
        shapes: dict[str, tuple[tuple[int, ...], str]] = {
            "image": ((size, size, 3), self.dtype),
            "spectrum": ((COMPACT_SIZE,), "uint8"),
        }
        return {key: np.zeros((n, *shape), dtype) for key, (shape, dtype) in shapes.items() if key in self.keys}

    def views(self, images: Tensor) -> Observation:
        """Views of the centres of working images ``(N, 3, H, W)``."""
        top, left = ((length - self.patch_size) // 2 for length in images.shape[-2:])
        patches = images[..., top : top + self.patch_size, left : left + self.patch_size]
        exact = self.dtype == "float32"
        rounded = None if exact and "spectrum" not in self.keys else quantized(patches)
        views: Observation = {}
        if "image" in self.keys:
            views["image"] = to_hwc(patches if exact or rounded is None else rounded)
        if "spectrum" in self.keys and rounded is not None:
            views["spectrum"] = compact_codes(rounded)
        return views


def observation_space(
    keys: Sequence[str], patch_size: int, dtype: ImageType, n_tools: int, max_steps: int, flatten: bool = False
) -> spaces.Space[Any]:
    """The space of one observation: a ``Dict``, or with ``flatten`` a ``Box``."""
    shape = (patch_size, patch_size, 3)
    floats: Any = spaces.Box(-np.inf, np.inf, shape, dtype=np.float32)
    known = {
        "image": floats if dtype == "float32" else spaces.Box(0, 255, shape, dtype=np.uint8),
        "spectrum": spaces.Box(LOWEST, HIGHEST, dtype=np.float32),
        "last_action": spaces.Discrete(n_tools + 2),
        "action_mask": spaces.MultiBinary(n_tools + 1),
        "steps_left": spaces.Discrete(max_steps + 1),
    }
    if not flatten:
        return spaces.Dict({key: known[key] for key in keys})
    if "image" in keys:
        return known["image"]
    ends = {
        "spectrum": (LOWEST, HIGHEST),
        "last_action": (np.zeros(n_tools + 2), np.ones(n_tools + 2)),
        "action_mask": (np.zeros(n_tools + 1), np.ones(n_tools + 1)),
        "steps_left": (np.zeros(1), np.full(1, max_steps)),
    }
    low, high = (np.concatenate([ends[key][side] for key in keys]).astype(np.float32) for side in (0, 1))
    return spaces.Box(low, high, dtype=np.float32)


def observe(
    views: Observation,
    last_action: npt.NDArray[np.int64],
    action_mask: npt.NDArray[np.int8],
    steps_left: npt.NDArray[np.int64],
) -> Observation:
    """A batch of observations, from views and the episodes' arrays: ``(N,)``, ``(N, n_actions)`` and ``(N,)``."""
    known = {**views, "last_action": last_action, "action_mask": action_mask, "steps_left": steps_left}
    if "spectrum" in views:
        known["spectrum"] = decoded(views["spectrum"])
    return known


def flattened(observation: Observation, n_tools: int) -> npt.NDArray[Any]:
    """A batch of images alone as it is; of other observations as rows ``(N, D)``, the previous action one-hot."""
    if "image" in observation:
        return observation["image"]
    columns = [
        np.eye(n_tools + 2, dtype=np.float32)[values] if key == "last_action" else values.reshape(len(values), -1)
        for key, values in observation.items()
    ]
    return np.concatenate(columns, axis=1, dtype=np.float32)


def observed_patch(patches: Tensor, dtype: ImageType) -> npt.NDArray[Any]:
    """Convert patches of working images ``(N, 3, P, P)`` to observed ones ``(N, P, P, 3)`` of type ``dtype``."""
    return to_hwc(patches if dtype == "float32" else quantized(patches))
