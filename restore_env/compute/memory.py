"""Keeps freed memory in the process, which makes repeated large tensors on Linux cheaper.

glibc returns each block of 32 MiB or more to the system when it is freed; when it is allocated again, the kernel clears
every page. In a training, which allocates the same large tensors at every step, that can take half of the CPU time.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
"""Parameters of glibc's ``mallopt``, see its manual page."""
_RETAIN = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**26))
_DEFAULT = ((_MMAP_MAX, 2**16), (_MMAP_THRESHOLD, 2**25), (_TRIM_THRESHOLD, 2**26), (_TOP_PAD, 2**17))
"""glibc's defaults, with the thresholds that it reaches by itself for blocks of such sizes."""
_LOCK = threading.Lock()
_inside = 0


@contextmanager
def retained_memory() -> Iterator[None]:
    """Keep freed memory in the process until the context ends, or the outermost one of several.

    Results do not change. The process may hold somewhat more memory than its peak need. Has no effect except on Linux
    with glibc.
    """
    try:
        library = ctypes.CDLL(None) if os.name == "posix" else None
    except OSError:  # a Python without shared libraries
        library = None
    if library is None or not (hasattr(library, "mallopt") and hasattr(library, "gnu_get_libc_version")):
        yield
        return
    _count(library, 1)
    try:
        yield
    finally:
        _count(library, -1)


def _count(library: ctypes.CDLL, change: int) -> None:
    """Note that a context begins or ends; set glibc's parameters at the first and after the last one."""
    global _inside
    with _LOCK:
        _inside += change
        if _inside == max(change, 0):
            for parameter, value in _RETAIN if _inside else _DEFAULT:
                library.mallopt(parameter, value)
            if not _inside:
                library.malloc_trim(0)
