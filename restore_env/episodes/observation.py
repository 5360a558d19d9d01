"""What a policy observes: the centre of the working image, the previous action, and the allowed actions."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from torch import Tensor

from restore_env.images.arrays import quantized, to_hwc

Observation = dict[str, npt.NDArray[Any]]
"""``image``, ``last_action`` and ``action_mask``; the first axis of each is the batch."""
ImageType = Literal["uint8", "float32"]
"""Type of the observed image: uint8, clipped and rounded; or float32, the exact working image."""


def observation_space(patch_size: int, dtype: ImageType, n_tools: int) -> spaces.Dict:
    """The space of one observation."""
    shape = (patch_size, patch_size, 3)
    if dtype == "uint8":
        image: spaces.Space[Any] = spaces.Box(0, 255, shape, dtype=np.uint8)
    else:
        image = spaces.Box(-np.inf, np.inf, shape, dtype=np.float32)
    return spaces.Dict(
        {
            "image": image,
            "last_action": spaces.Discrete(n_tools + 2),
            "action_mask": spaces.MultiBinary(n_tools + 1),
        }
    )


def observe(
    image: npt.NDArray[Any], last_action: npt.NDArray[np.int64], action_mask: npt.NDArray[np.int8]
) -> Observation:
    """A batch of observations: images ``(N, P, P, 3)``, previous actions ``(N,)`` and masks ``(N, n_actions)``."""
    return {"image": image, "last_action": last_action, "action_mask": action_mask}


def centre_patch(images: Tensor, size: int, dtype: ImageType) -> npt.NDArray[Any]:
    """The observed centre patches of working images ``(N, 3, H, W)``: ``(N, size, size, 3)``."""
    top, left = (images.shape[-2] - size) // 2, (images.shape[-1] - size) // 2
    return observed_patch(images[..., top : top + size, left : left + size], dtype)


def observed_patch(patches: Tensor, dtype: ImageType) -> npt.NDArray[Any]:
    """Convert patches of working images ``(N, 3, P, P)`` to observed ones ``(N, P, P, 3)`` of type ``dtype``."""
    return to_hwc(patches if dtype == "float32" else quantized(patches))
