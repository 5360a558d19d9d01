"""Labelled photographs: folders of images, each with a label image of the same size that holds the categories' ids."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from restore_env.errors import ImageRestoreError
from restore_env.images.cache import PixelCache
from restore_env.images.decoding import SUFFIXES, read_image
from sr_models.prior.categories import CATEGORIES, IGNORE

IMAGES, LABELS = "images", "labels"
"""The two folders inside a labelled folder."""
MIN_SIZE = 16
"""Pixels that an image's shorter side must have."""
HELD_OUT_EVERY = 5
"""One of this many images of a folder, in the order of their names, is kept for validation."""

_KNOWN = np.isin(np.arange(256), [*range(len(CATEGORIES)), IGNORE])


class LabelError(ImageRestoreError):
    """Labelled photographs that cannot be used; the message names the file and says what is wrong, in one line."""


class LabelledImages:
    """Photographs and their categories, each decoded once and checked.

    Args:
        folders: each holds ``images/`` and ``labels/``; files belong together by their names without the suffix. A
            label image is an 8-bit PNG of one channel whose values are the ids of
            :data:`sr_models.prior.categories.CATEGORIES`, or 255 where the category is unknown.

    Raises:
        LabelError: a folder without images, an image without labels or labels without an image, two images of one
            name, labels of another size, of more channels or with other ids, or an image that is too small.
        ImageError: an image that cannot be read.
    """

    def __init__(self, *folders: str | os.PathLike[str]) -> None:
        self._cache = PixelCache()
        self._categories: list[tuple[int, ...]] = []
        self._held_out: list[bool] = []
        for folder in folders:
            for row, (image, labels) in enumerate(matched_files(Path(folder))):
                pixels, ids = read_image(image).pixels, read_labels(labels)
                height, width = pixels.shape[:2]
                if ids.shape != (height, width):
                    raise LabelError(
                        f"{labels}: is {ids.shape[1]}x{ids.shape[0]}, but its image is {width}x{height}; labels must"
                        " have the image's size"
                    )
                if min(height, width) < MIN_SIZE:
                    raise LabelError(f"{image}: {width}x{height} is smaller than {MIN_SIZE} pixels; leave it out")
                self._cache.put(str(len(self)), np.dstack([pixels, ids]))
                self._categories.append(tuple(int(i) for i in np.unique(ids) if i != IGNORE))
                self._held_out.append(row % HELD_OUT_EVERY == 0)
        if not self._categories:
            raise LabelError("no labelled folder was given")

    def __len__(self) -> int:
        return len(self._categories)

    def pair(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """An image, uint8 RGB ``(H, W, 3)``, and the id of every pixel's category, uint8 ``(H, W)``; both read-only."""
        both = self._cache.get(str(index))
        return both[..., :3], both[..., 3]

    def categories(self, index: int) -> tuple[int, ...]:
        """The ids of the categories in an image."""
        return self._categories[index]

    def split(self) -> tuple[list[int], list[int]]:
        """The images of training and of validation: every fifth of a folder, the first included, by the files' names.

        With one image in each folder all are both.
        """
        held_out = [index for index, held in enumerate(self._held_out) if held]
        return [index for index, held in enumerate(self._held_out) if not held] or held_out, held_out


def matched_files(folder: Path) -> list[tuple[Path, Path]]:
    """The images of a labelled folder, each with its labels, ordered by name.

    Raises:
        LabelError: as :class:`LabelledImages` says.
    """
    for name in (IMAGES, LABELS):
        if not (folder / name).is_dir():
            raise LabelError(f"{folder}: has no folder {name!r}; expected {IMAGES}/ and {LABELS}/ side by side")
    images = _by_stem(folder / IMAGES, SUFFIXES)
    labels = _by_stem(folder / LABELS, (".png",))
    if not images:
        raise LabelError(f"{folder / IMAGES}: holds no images")
    for stem in sorted({*images, *labels}):
        if stem not in labels:
            raise LabelError(f"{images[stem]}: has no labels; expected {folder / LABELS / stem}.png")
        if stem not in images:
            raise LabelError(f"{labels[stem]}: has no image; expected {folder / IMAGES / stem} with an image's suffix")
    return [(images[stem], labels[stem]) for stem in sorted(images)]


def read_labels(path: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    """Read a label image: the id of every pixel's category, uint8 ``(H, W)``; 255 where it is unknown.

    A PNG of indexed colours is read by its indices.

    Raises:
        LabelError: the file is damaged, has more than one channel or 16 bits, or holds an id that is no category's.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            mode, ids = image.mode, np.array(image)
    except Exception as error:  # decoders raise whatever a broken file provokes
        raise LabelError(f"{path}: not a readable PNG ({type(error).__name__})") from None
    if mode not in ("L", "P"):
        raise LabelError(f"{path}: has the mode {mode}; labels are PNGs of one channel of 8 bits (mode L or P)")
    unknown = np.unique(ids[~_KNOWN[ids]])
    if len(unknown):
        known = ", ".join(f"{number} {name}" for number, name in enumerate(CATEGORIES))
        raise LabelError(f"{path}: holds the unknown id {unknown[0]}; expected {known}, or {IGNORE} (unknown)")
    return ids


def _by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in suffixes or path.name.startswith("."):
            continue
        if path.stem in found:
            raise LabelError(f"{path}: another file of this name lies beside it, {found[path.stem].name}; keep one")
        found[path.stem] = path
    return found
