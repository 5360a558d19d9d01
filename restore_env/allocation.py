"""Memory that is used again and again: told to the C library, which otherwise hands it back after every step.

glibc returns each block of 32 MiB or more to the system when it is freed; taken anew, every page of it is first
cleared by the kernel. Where the same large tensors are made at every step, as in training, that can take half of the
processor's time.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
"""Parameters of glibc's ``mallopt``, see its manual page."""
_KEEPING = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**26))
_USUAL = ((_MMAP_MAX, 2**16), (_MMAP_THRESHOLD, 2**25), (_TRIM_THRESHOLD, 2**26), (_TOP_PAD, 2**17))
"""As glibc starts, with the thresholds where it takes them by itself when blocks of such sizes come and go."""


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keep freed memory of the process for what it needs next; give it back at the end.

    Results do not change. The process may hold somewhat more memory than at its peak it needs. Does nothing but on
    Linux with glibc.
    """
    try:
        library = ctypes.CDLL(None) if os.name == "posix" else None
    except OSError:  # a Python without shared libraries
        library = None
    if not (hasattr(library, "mallopt") and hasattr(library, "gnu_get_libc_version")):
        yield
        return
    assert library is not None
    for parameter, value in _KEEPING:
        library.mallopt(parameter, value)
    try:
        yield
    finally:
        for parameter, value in _USUAL:
            library.mallopt(parameter, value)
        library.malloc_trim(0)
