"""Sources of photographs: the embedded ones, folders, paths, arrays, or pairs; each is decoded once and cached."""

from __future__ import annotations

import hashlib
import importlib.resources
import itertools
import os
import re
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from restore_env.images.arrays import Pixels
from restore_env.images.cache import PixelCache, shared_cache
from restore_env.images.decoding import ImageError, Photo, as_rgb8, photo_of, read_image
from restore_env.images.files import list_images
from restore_env.images.formats import SUFFIXES
from restore_env.images.samples import tool_input

ImageLike: TypeAlias = "str | os.PathLike[str] | npt.NDArray[Any]"
"""A path or an array that :func:`restore_env.images.decoding.as_rgb8` accepts."""
PhotoLike: TypeAlias = "ImageLike | Photo"
"""An image that a user passes."""
ImagesLike: TypeAlias = "str | os.PathLike[str] | Sequence[ImageLike] | Sequence[tuple[ImageLike, ImageLike]] | None"
"""What the ``images`` argument takes: None, a folder, a file, a list of images, or a list of (distorted, target)."""

EMBEDDED = ("astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "motorcycle_left.png", "rocket.jpg")
"""The colour photographs that come with scikit-image."""

NAMED_SKIPPED = 20
"""Number of files that the warning about skipped ones names."""

_TAG = re.compile(r"[_-](in|input|lq|lr|degraded|noisy|blurred|gt|hq|hr|target|clean)$", re.IGNORECASE)


@dataclass(frozen=True)
class _CachedImage:
    identity: str
    key: str
    height: int
    width: int


def short_names(identities: Sequence[str]) -> list[str]:
    """Names of images for tables: a file's name without its suffix, or its whole path if several share that name."""
    stems = [Path(identity).stem for identity in identities]
    return [stem if stems.count(stem) == 1 else path for stem, path in zip(stems, identities, strict=True)]


class ImageSource:
    """A fixed list of photographs, each decoded once, at any scale.

    Built by :func:`open_images`. ``source.pixels(i, scale)`` is uint8 RGB ``(H, W, 3)``, read-only. ``skipped`` holds
    the reason for each image that was left out (only with ``lenient``; otherwise such an image is an error).
    """

    def __init__(self, images: Sequence[ImageLike], cache: PixelCache, *, min_size: int, lenient: bool) -> None:
        self._cache = cache
        self._min_size = min_size
        self._entries: list[_CachedImage] = []
        self.skipped: list[str] = []
        pool = ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1))
        try:
            for outcome in pool.map(self._take, range(len(images)), images):
                if isinstance(outcome, _CachedImage):
                    self._entries.append(outcome)
                elif lenient:
                    self.skipped.append(outcome)
                else:
                    raise ImageError(outcome)
        finally:
            pool.shutdown(cancel_futures=True)

    def __len__(self) -> int:
        return len(self._entries)

    def identity(self, index: int) -> str:
        """The image's name in records: its path, ``scikit-image/<name>``, or ``array-<index>-<digest>``."""
        return self._entries[index].identity

    def size(self, index: int, scale: float = 1.0) -> tuple[int, int]:
        """Height and width of image ``index`` at ``scale``."""
        entry = self._entries[index]
        return max(1, round(entry.height * scale)), max(1, round(entry.width * scale))

    def pixels(self, index: int, scale: float = 1.0) -> Pixels:
        """Image ``index`` at ``scale`` (antialiased bicubic), computed on first use and cached."""
        entry = self._entries[index]
        if scale == 1.0:
            return self._cache.get(entry.key)
        height, width = self.size(index, scale)
        key = f"{entry.key}-{width}x{height}"
        if key not in self._cache:
            full = Image.fromarray(self._cache.get(entry.key))
            self._cache.put(key, np.asarray(full.resize((width, height), Image.Resampling.BICUBIC)))
        return self._cache.get(key)

    def _take(self, index: int, image: ImageLike) -> _CachedImage | str:
        """Decode one image into the cache; return the reason if it cannot be used."""
        try:
            if isinstance(image, np.ndarray):
                pixels = as_rgb8(image, f"image {index}")
                digest = hashlib.sha1(repr(pixels.shape).encode(), usedforsecurity=False)
                digest.update(pixels.data)
                key = digest.hexdigest()
                identity = f"array-{index}-{key[:8]}"
            else:
                path = Path(image)
                identity, key = _identity(path), _file_key(path)
                pixels = self._cache.get(key) if key in self._cache else read_image(path).pixels
        except ImageError as error:
            return str(error)
        height, width = pixels.shape[:2]
        if min(height, width) < self._min_size:
            return f"{identity}: {width}x{height} is smaller than a patch of {self._min_size} pixels"
        if key not in self._cache:
            self._cache.put(key, pixels)
        return _CachedImage(identity, key, height, width)


class PairSource:
    """A fixed list of (distorted, target) pairs. ``factor(i)`` is how much larger the target is than the input."""

    def __init__(self, pairs: Sequence[tuple[ImageLike, ImageLike]], cache: PixelCache, *, min_size: int) -> None:
        self.distorted = ImageSource([pair[0] for pair in pairs], cache, min_size=min_size, lenient=False)
        self.target = ImageSource([pair[1] for pair in pairs], cache, min_size=min_size, lenient=False)
        self._factors = [
            pair_factor(self.distorted.size(i), self.target.size(i), self.identity(i)) for i in range(len(pairs))
        ]

    def __len__(self) -> int:
        return len(self._factors)

    def identity(self, index: int) -> str:
        """The distorted image's identity."""
        return self.distorted.identity(index)

    def factor(self, index: int) -> int:
        """1 if the images are of one size, 4 if the target is four times as large."""
        return self._factors[index]


def pair_factor(distorted: tuple[int, int], target: tuple[int, int], name: str) -> int:
    """How many times larger the target is; raise ImageError unless it is a whole number in both directions."""
    factor = max(1, target[0] // distorted[0])
    if (distorted[0] * factor, distorted[1] * factor) != tuple(target):
        raise ImageError(
            f"{name}: distorted {distorted[1]}x{distorted[0]} and target {target[1]}x{target[0]} do not fit together;"
            " the target must be as large as the distorted image or a whole number of times larger"
        )
    return factor


def open_images(
    images: ImagesLike = None,
    *,
    min_size: int = 1,
    cache_dir: str | os.PathLike[str] | None = None,
) -> ImageSource | PairSource:
    """Open photographs for the environment or for training.

    Args:
        images: None for the photographs that come with scikit-image; a folder (searched recursively for files of
            :data:`restore_env.images.formats.SUFFIXES`; what cannot be used is skipped with one warning); a file; a
            list of paths or arrays; or a list of (distorted, target) pairs of these.
        min_size: smallest height and width, in pixels.
        cache_dir: folder that keeps the decoded images between processes. None: a temporary one.

    Raises:
        ImageError: an image named explicitly cannot be used, or no image is left.
    """
    cache = PixelCache(cache_dir) if cache_dir is not None else shared_cache()
    if images is None:
        return ImageSource(embedded_paths(), cache, min_size=min_size, lenient=False)
    if isinstance(images, (str, os.PathLike)):
        folder = Path(images)
        if not folder.is_dir():
            return ImageSource([folder], cache, min_size=min_size, lenient=False)
        paths = images_in(folder)
        source = ImageSource(paths, cache, min_size=min_size, lenient=True)
        if not len(source):
            raise ImageError(f"{folder}: none of its {len(paths)} image file(s) can be used: {source.skipped[0]}")
        if source.skipped:
            count = len(source.skipped)
            more = f"; and {count - NAMED_SKIPPED} more" if count > NAMED_SKIPPED else ""
            reasons = "; ".join(source.skipped[:NAMED_SKIPPED])
            warnings.warn(f"{count} image file(s) skipped: {reasons}{more}", stacklevel=2)
        return source
    if isinstance(images, np.ndarray) or not isinstance(images, Sequence):
        raise ImageError(
            f"images: expected a folder, a file, or a list of paths, arrays or pairs; got {type(images).__name__}"
        )
    if not images:
        raise ImageError("images: the list is empty")
    given: Any = images
    if all(isinstance(item, (tuple, list)) and len(item) == 2 for item in given):
        for index, side in itertools.product(range(len(given)), range(2)):
            _check_kind(given[index][side], f"images[{index}][{side}]")
        return PairSource(given, cache, min_size=min_size)
    for index, item in enumerate(given):
        _check_kind(item, f"images[{index}]")
    return ImageSource(given, cache, min_size=min_size, lenient=False)


def _check_kind(item: object, name: str) -> None:
    if not isinstance(item, (str, os.PathLike, np.ndarray)):
        raise ImageError(f"{name}: expected a path or an array (or a list of pairs only), got {type(item).__name__}")


def embedded_paths() -> list[Path]:
    """Paths of the colour photographs that come with scikit-image."""
    folder = Path(str(importlib.resources.files("skimage"))) / "data"
    return [folder / name for name in EMBEDDED]


def open_photo(image: PhotoLike, name: str) -> tuple[npt.NDArray[np.uint8] | npt.NDArray[np.float32], Photo]:
    """Open an image that a user passes, as :func:`as_photo`, and return the colours to restore, too.

    Returns:
        The colours, RGB ``(H, W, 3)``, uint8, or float32 in [0, 1] (:func:`tool_input`); and the photo.
    """
    photo = as_photo(image, name)
    return tool_input(photo), photo


def as_photo(image: PhotoLike, name: str) -> Photo:
    """Open an image that a user passes.

    Args:
        image: a path, an array that :func:`restore_env.images.decoding.as_rgb8` accepts, or a Photo.
        name: the array's name in errors.

    Raises:
        ImageError: the image cannot be used.
    """
    if isinstance(image, Photo):
        as_rgb8(image.pixels, name)
        return image
    return read_image(image) if isinstance(image, (str, os.PathLike)) else photo_of(np.asarray(image), name)


def images_in(folder: str | os.PathLike[str]) -> list[Path]:
    """Image files below a folder that must have some.

    Raises:
        ImageError: no such folder, or no image files in it.
    """
    if not Path(folder).is_dir():
        raise ImageError(f"{folder}: no such folder")
    paths = list_images(folder)
    if not paths:
        raise ImageError(f"{folder}: the folder holds no image files ({', '.join(s[1:] for s in SUFFIXES)})")
    return paths


def pair_folders(distorted: str | os.PathLike[str], target: str | os.PathLike[str]) -> list[tuple[Path, Path]]:
    """Match the files of two folders by name, whatever their suffix and a tag such as ``_in`` or ``_gt`` at the end.

    Raises:
        ImageError: a folder is missing or empty, or a file has no partner or more than one.
    """
    inputs, targets = _files_by_name(distorted), _files_by_name(target)
    unmatched = sorted(str((inputs | targets)[key]) for key in inputs.keys() ^ targets.keys())
    if unmatched:
        raise ImageError(f"{unmatched[0]}: no partner of that name in the other folder ({len(unmatched)} such file(s))")
    return [(path, targets[key]) for key, path in inputs.items()]


def _files_by_name(folder: str | os.PathLike[str]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in images_in(folder):
        name = _TAG.sub("", str(path.relative_to(folder).with_suffix("")))
        if name in files:
            raise ImageError(f"{path}: same name as {files[name]}; the pair is ambiguous")
        files[name] = path
    return files


def _identity(path: Path) -> str:
    """A file's name in records: its path, but without the machine's folder for embedded photographs."""
    return f"scikit-image/{path.name}" if path.parent.parts[-2:] == ("skimage", "data") else str(path)


def _file_key(path: Path) -> str:
    try:
        status = path.stat()
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise ImageError(f"{path}: {reason}") from None
    stamp = f"{path.resolve()}|{status.st_mtime_ns}|{status.st_size}"
    return hashlib.sha1(os.fsencode(stamp), usedforsecurity=False).hexdigest()
