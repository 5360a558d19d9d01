"""What can be said of a photograph that has no target: noise, blur, blocks. None of them says how good it is.

Each is lowered by a different kind of damage: what wipes out detail lowers noise and blocks, too, and raises blur. So
they are read together: less noise and fewer blocks at the same blur is a gain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from restore_env.images.tiling import to_tensor
from restore_env.metrics import luma

Pixels = npt.NDArray[np.uint8]
BLOCK = 8
"""Side of JPEG's blocks."""
LEAST = 4 * BLOCK
"""Pixels along a side with which anything can be said."""
_LAPLACIANS = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float64)
_NORMAL_QUARTILE = 0.6744897501960817


def luminance(pixels: Pixels) -> npt.NDArray[np.float64]:
    """Y of Rec. 601, 16 to 235, of uint8 RGB ``(H, W, 3)``.

    Raises:
        ValueError: the photograph is smaller than :data:`LEAST` pixels along a side.
    """
    if min(pixels.shape[:2]) < LEAST:
        height, width = pixels.shape[:2]
        raise ValueError(f"{width}x{height} pixels are too few to be measured; {LEAST}x{LEAST} are the least")
    return np.asarray(255 * luma(to_tensor(pixels).double())[0, 0].numpy())


def noise_sigma(pixels: Pixels) -> float:
    """The standard deviation of the noise, in 1/255, as a filter that no edge or slope passes sees it.

    The difference of two Laplacians (Immerkaer, CVIU 1996), whose noise is 6 times that of the image, and of its
    absolute values the median in place of the mean (Donoho, Johnstone, Biometrika 1994): texture then counts less.
    Noise that is spread over neighbouring pixels, as after shrinking or compression, is seen in part only.
    """
    import cv2

    seen = cv2.filter2D(luminance(pixels), cv2.CV_64F, _LAPLACIANS, borderType=cv2.BORDER_REFLECT_101)[1:-1, 1:-1]
    return float(np.median(np.abs(seen)) / _NORMAL_QUARTILE / np.linalg.norm(_LAPLACIANS))


def blur(pixels: Pixels) -> float:
    """How little is lost by blurring once more, 0 (sharp) to 1: scikit-image's ``blur_effect`` (Crete et al., 2007)."""
    from skimage.measure import blur_effect

    return float(blur_effect(luminance(pixels) / 255))  # type: ignore[no-untyped-call]


def blockiness(pixels: Pixels) -> float:
    """Steps between neighbouring pixels across the edges of JPEG's blocks, over those elsewhere; 1 without blocks.

    The two features of Wang, Sheikh, Bovik (ICIP 2002), B over A, mean of rows and columns. The blocks must begin at
    the corner: those of a compression before cropping or shrinking are not seen.
    """
    values = luminance(pixels)
    ratios = []
    for image in (values, values.T):
        steps = np.abs(np.diff(image, axis=1)).mean(axis=0)
        edges = np.arange(1, len(steps) + 1) % BLOCK == 0
        ratios.append(float(steps[edges].mean() / max(steps[~edges].mean(), 1e-9)))
    return float(np.mean(ratios))


@dataclass(frozen=True)
class Measure:
    """One column of the table."""

    title: str
    form: str
    """How tables write it."""
    of: Callable[[Pixels], float]
    """From uint8 RGB ``(H, W, 3)``."""


MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        "noise": Measure("noise, of 255", ".2f", noise_sigma),
        "blur": Measure("blur, 0 to 1", ".3f", blur),
        "blocks": Measure("blocks, 1 is none", ".3f", blockiness),
    }
)
"""All measures, by name; lower is better of each if the others stay."""
READING = (
    "No measure here knows what the photograph should look like. Noise is estimated from flat parts, and compressed"
    " noise is hardly seen; blocks are steps across the JPEG grid over those elsewhere. Both fall, too, when detail is"
    " wiped out; then blur rises, but it also rises where noise goes. Less noise and fewer blocks at the same or less"
    " blur is a gain; else the picture has the last word."
)
"""How to read them, for captions."""
