"""The eight categories of outdoor scenes on which SFT-GAN conditions, and the ADE20K classes of each.

Source: Wang et al., "Recovering Realistic Texture in Image Super-resolution by Deep Spatial Feature Transform", CVPR
2018, section 4 (seven categories and the background), in the order of the published maps. ADE20K: Zhou et al., CVPR
2017, the 150 classes of the scene parsing benchmark.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

CATEGORIES = ("background", "sky", "water", "grass", "mountain", "building", "plant", "animal")
"""The categories in the order of their ids, which label images hold, and of the channels of probability maps."""
BACKGROUND = 0
"""The id of whatever is none of the other seven."""
IGNORE = 255
"""The label of pixels of unknown category, which training and evaluation leave out."""

ADE20K_CLASSES = 150
ADE20K_CATEGORIES: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "sky": (2,),
        "water": (21, 26, 60, 128, 113, 109),  # water, sea, river, lake, waterfall, swimming pool
        "grass": (9, 29),  # grass, field
        "mountain": (16, 68, 34),  # mountain, hill, rock
        "building": (1, 25, 48, 79, 84),  # building, house, skyscraper, hovel, tower
        "plant": (4, 17, 72, 66),  # tree, plant, palm, flower
        "animal": (126,),
    }
)
"""The indices of the ADE20K classes of each category; all others are background."""
