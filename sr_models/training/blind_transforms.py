"""The blind distortion as an albumentations transform, for ``A.Compose`` and ``A.ReplayCompose``."""

from __future__ import annotations

from typing import Any

import numpy as np

from restore_env.distortions.transforms import ProtocolTransform
from restore_env.images.arrays import Pixels
from sr_models.training.blind_distortion import blind


class BlindDistortion(ProtocolTransform):
    """Two passes of distortion, to a quarter of the size: :func:`sr_models.training.blind_distortion.blind`.

    Its only random parameter is a seed, so a replay gives the same result. Heights and widths must be multiples of 4.

    Args:
        p: probability of applying the transform.
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
