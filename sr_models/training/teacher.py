"""A teacher's outputs on disk: additional targets of super-resolution, computed once for whole photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from restore_env.distortions.crop import Crop, cut
from restore_env.images.arrays import Pixels
from sr_models.generators import UPSCALE


def output_path(folder: Path, identity: str, scale: float) -> Path:
    """Where the output for a photograph at one of the protocol's scales lies: ``name@67.npy`` for 2/3."""
    return folder / f"{Path(identity).name}@{round(100 * scale)}.npy"


class TeacherOutputs:
    """What a teacher made of the bicubically shrunk photographs, uint8 RGB ``(H, W, 3)`` arrays of their size.

    Height and width are cut to multiples of 4. Only the crop that is asked for is read.

    Args:
        folder: of the arrays, as :func:`output_path` names them.

    Raises:
        ValueError: no such folder, or no arrays in it.
    """

    def __init__(self, folder: Path) -> None:
        if not any(folder.glob("*.npy")):
            raise ValueError(f"{folder}: holds no outputs of a teacher (name@100.npy)")
        self._folder = folder

    def patch(self, crop: Crop) -> Pixels:
        """The teacher's output for a crop's target.

        Raises:
            ValueError: there is none for this photograph, or one of another size.
        """
        path = output_path(self._folder, crop.identity, crop.scale)
        if not path.is_file():
            raise ValueError(f"{path}: no such file; let the teacher upscale all photographs")
        output = np.load(path, mmap_mode="r")
        expected = tuple(length // UPSCALE * UPSCALE for length in crop.image.shape[:2])
        if output.shape != (*expected, 3) or output.dtype != np.uint8:
            raise ValueError(f"{path}: {output.dtype} {output.shape}, expected uint8 {(*expected, 3)}")
        top, left, size = (crop.factor * length for length in (crop.top, crop.left, crop.size))
        return cut(output, top, left, size)
