"""A cache of decoded images on disk."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import weakref
from collections import OrderedDict
from pathlib import Path

import numpy as np

from restore_env.images.arrays import Pixels
from restore_env.images.decoding import ImageError

MAPPED_BYTES = 256 * 2**20
"""Default bound on the bytes that are mapped into memory at a time."""


class PixelCache:
    """Decoded images as ``.npy`` files that are memory-mapped on use; thread-safe.

    Args:
        folder: where the files are kept. None makes a temporary folder that is deleted with the cache.
        mapped_bytes: bound on what is mapped at a time; the least recently used images are unmapped.

    Raises:
        ImageError: the folder cannot be made or written to.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, mapped_bytes: int = MAPPED_BYTES) -> None:
        if folder is None:
            folder = tempfile.mkdtemp(prefix="imagerestore-")
            weakref.finalize(self, _remove_folder, folder, os.getpid())
        self._folder = Path(folder)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ImageError(f"{folder}: cannot keep decoded images there ({error.strerror})") from None
        self._mapped_bytes = mapped_bytes
        self._maps: OrderedDict[str, Pixels] = OrderedDict()
        self._lock = threading.Lock()

    def __contains__(self, key: str) -> bool:
        return key in self._maps or self._path(key).exists()

    def put(self, key: str, pixels: Pixels) -> None:
        """Store an image, atomically."""
        try:
            descriptor, temporary = tempfile.mkstemp(dir=self._folder, suffix=".part")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    np.save(file, pixels)
                Path(temporary).replace(self._path(key))
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise ImageError(f"{self._folder}: cannot keep decoded images there ({error.strerror or error})") from None

    def get(self, key: str) -> Pixels:
        """Return the image, read-only and backed by its file."""
        with self._lock:
            pixels = self._maps.get(key)
            if pixels is not None:
                self._maps.move_to_end(key)
                return pixels
            pixels = np.asarray(np.load(self._path(key), mmap_mode="r"))  # np.memmap's own arithmetic is slow
            self._maps[key] = pixels
            mapped = sum(p.nbytes for p in self._maps.values())
            while mapped > self._mapped_bytes and len(self._maps) > 1:
                mapped -= self._maps.popitem(last=False)[1].nbytes
            return pixels

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.npy"


def _remove_folder(folder: str, owner: int) -> None:
    """Delete a temporary folder, unless this process is a forked child of its owner."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


_SHARED: weakref.WeakValueDictionary[int, PixelCache] = weakref.WeakValueDictionary()


def shared_cache() -> PixelCache:
    """The process's temporary cache, shared by all sources and deleted with the last of them."""
    cache = _SHARED.get(os.getpid())
    if cache is None:
        cache = _SHARED[os.getpid()] = PixelCache()
    return cache
