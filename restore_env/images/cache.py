"""A cache of decoded images on disk."""

from __future__ import annotations

import functools
import io
import os
import shutil
import threading
import weakref
from pathlib import Path
from typing import IO

import numpy as np

from restore_env.compute.leftovers import temporary_folder
from restore_env.errors import one_line
from restore_env.images.arrays import Pixels
from restore_env.images.decoding import ImageError
from restore_env.images.files import write_atomically

MAPPED_IMAGES = 128
"""Bound on the images that are mapped into memory at a time."""
_READING = threading.Lock()
"""NumPy parses a file's header with ``ast``, which in Python 3.11 can fail if two threads do so at a time."""


class PixelCache:
    """Decoded images as ``.npy`` files that are memory-mapped on use; thread-safe.

    Args:
        folder: where the files are kept. None makes a temporary folder that is deleted with the cache.

    Raises:
        ImageError: the folder cannot be made or written to.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        if folder is None:
            folder, lock = temporary_folder()
            weakref.finalize(self, _remove_folder, folder, lock, os.getpid())
        self._folder = Path(folder)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ImageError(f"{folder}: cannot keep decoded images there ({error.strerror})") from None
        self._mapped = functools.lru_cache(MAPPED_IMAGES)(_map_file)

    def __contains__(self, key: str) -> bool:
        return self._path(key).exists()

    def put(self, key: str, pixels: Pixels) -> None:
        """Store an image, atomically."""
        try:
            content = io.BytesIO()
            np.save(content, pixels)
            write_atomically(self._path(key), content.getvalue())
        except OSError as error:
            raise ImageError(f"{self._folder}: cannot keep decoded images there ({error.strerror or error})") from None

    def get(self, key: str) -> Pixels:
        """Return the image, read-only and backed by its file."""
        return self._mapped(self._path(key))

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.npy"


def _map_file(path: Path) -> Pixels:
    try:
        with _READING:
            return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))  # np.memmap's own arithmetic is slow
    except Exception as error:  # NumPy parses the header as Python, which may raise anything
        raise ImageError(f"{path}: damaged ({one_line(error)}): delete it") from None


def _remove_folder(folder: Path, lock: IO[bytes], owner: int) -> None:
    """Delete a temporary folder, unless this process is a forked child of its owner."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
    lock.close()


_SHARED: weakref.WeakValueDictionary[int, PixelCache] = weakref.WeakValueDictionary()


def shared_cache() -> PixelCache:
    """The process's temporary cache, shared by all sources and deleted with the last of them."""
    cache = _SHARED.get(os.getpid())
    if cache is None:
        cache = _SHARED[os.getpid()] = PixelCache()
    return cache
