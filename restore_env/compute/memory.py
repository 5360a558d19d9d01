"""Memory that is used again and again: told to the C library, which otherwise hands it back after every step.

glibc returns each block of 32 MiB or more to the system when it is freed; taken anew, every page of it is first
cleared by the kernel. Where the same large tensors are made at every step, as in training, that can take half of the
processor's time.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
"""Parameters of glibc's ``mallopt``, see its manual page."""
_KEEPING = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**26))
_USUAL = ((_MMAP_MAX, 2**16), (_MMAP_THRESHOLD, 2**25), (_TRIM_THRESHOLD, 2**26), (_TOP_PAD, 2**17))
"""As glibc starts, with the thresholds where it takes them by itself when blocks of such sizes come and go."""


class _Holders:
    """How many want the memory kept."""

    def __init__(self) -> None:
        self.count, self.lock = 0, threading.Lock()


_HOLDERS = _Holders()


@contextmanager
def retained_memory() -> Iterator[None]:
    """Keep freed memory of the process for what it needs next; give it back at the end.

    May be nested and used by several threads: the last one to end gives it back. Results do not change. The process may
    hold somewhat more memory than at its peak it needs. Does nothing but on Linux with glibc.
    """
    try:
        library = ctypes.CDLL(None) if os.name == "posix" else None
    except OSError:  # a Python without shared libraries
        library = None
    if not (hasattr(library, "mallopt") and hasattr(library, "gnu_get_libc_version")):
        yield
        return
    assert library is not None
    with _HOLDERS.lock:
        _HOLDERS.count += 1
        if _HOLDERS.count == 1:
            _set(library, _KEEPING)
    try:
        yield
    finally:
        with _HOLDERS.lock:
            _HOLDERS.count -= 1
            if not _HOLDERS.count:
                _set(library, _USUAL)
                library.malloc_trim(0)


def _set(library: ctypes.CDLL, parameters: Iterable[tuple[int, int]]) -> None:
    for parameter, value in parameters:
        library.mallopt(parameter, value)
