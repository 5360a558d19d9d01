"""Pictures of noise, in memory and in files, and sources of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from restore_env.images.sources import ImageSource, open_images

Byte = npt.NDArray[np.uint8]


def picture(height: int, width: int, seed: int = 0) -> Byte:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: Path, height: int = 20, width: int = 30, seed: int = 0) -> Byte:
    pixels = picture(height, width, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def opened(images: Any, **options: Any) -> ImageSource:
    source = open_images(images, **options)
    assert isinstance(source, ImageSource)
    return source
