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

# fmt: off
ADE20K_NAMES = (
    "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass",
    "cabinet", "sidewalk", "person", "earth", "door", "table", "mountain", "plant", "curtain", "chair",
    "car", "water", "painting", "sofa", "shelf", "house", "sea", "mirror", "rug", "field",
    "armchair", "seat", "fence", "desk", "rock", "wardrobe", "lamp", "bathtub", "railing", "cushion",
    "base", "box", "column", "signboard", "chest of drawers", "counter", "sand", "sink", "skyscraper", "fireplace",
    "refrigerator", "grandstand", "path", "stairs", "runway", "case", "pool table", "pillow", "screen door", "stairway",
    "river", "bridge", "bookcase", "blind", "coffee table", "toilet", "flower", "book", "hill", "bench",
    "countertop", "stove", "palm", "kitchen island", "computer",
    "swivel chair", "boat", "bar", "arcade machine", "hovel",
    "bus", "towel", "light", "truck", "tower", "chandelier", "awning", "streetlight", "booth", "television receiver",
    "airplane", "dirt track", "apparel", "pole", "land", "bannister", "escalator", "ottoman", "bottle", "buffet",
    "poster", "stage", "van", "ship", "fountain", "conveyer belt", "canopy", "washer", "plaything", "swimming pool",
    "stool", "barrel", "basket", "waterfall", "tent", "bag", "minibike", "cradle", "oven", "ball",
    "food", "step", "tank", "trade name", "microwave", "pot", "animal", "bicycle", "lake", "dishwasher",
    "screen", "blanket", "sculpture", "hood", "sconce", "vase", "traffic light", "tray", "ashcan", "fan",
    "pier", "crt screen", "plate", "monitor", "bulletin board", "shower", "radiator", "glass", "clock", "flag",
)
# fmt: on
"""ADE20K's 150 classes in the order of their indices (0 to 149)."""

ADE20K_CATEGORIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "sky": ("sky",),
        "water": ("water", "sea", "river", "lake", "waterfall", "swimming pool"),
        "grass": ("grass", "field"),
        "mountain": ("mountain", "hill", "rock"),
        "building": ("building", "house", "skyscraper", "hovel", "tower"),
        "plant": ("tree", "plant", "palm", "flower"),
        "animal": ("animal",),
    }
)
"""The ADE20K classes of each category; all others are background."""


def category_of(ade20k_class: int) -> int:
    """The id of the category of an ADE20K class, given by its index (0 to 149)."""
    name = ADE20K_NAMES[ade20k_class]
    return next((CATEGORIES.index(own) for own, classes in ADE20K_CATEGORIES.items() if name in classes), BACKGROUND)
