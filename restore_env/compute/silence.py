"""Silences the libraries that decode images: the error that is raised is enough."""

from __future__ import annotations

import contextlib
import ctypes
import threading
import warnings
from collections.abc import Callable
from typing import Any

import cv2
from PIL import _imaging


class Silence:
    """A context that suppresses warnings and logs of decoders, in any number of threads.

    ``warnings.catch_warnings`` is not thread-safe, so the first thread that enters suppresses them, and the last one
    that leaves restores.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._restore = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._restore.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
                self._restore.callback(cv2.utils.logging.setLogLevel, cv2.utils.logging.getLogLevel())
                cv2.utils.logging.setLogLevel(0)
                for set_handler in _LIBTIFF:
                    self._restore.callback(set_handler, set_handler(None))
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._restore.close()


def _libtiff_handlers() -> list[Callable[[Any], Any]]:
    """What sets the error and the warning handler of Pillow's libtiff, which print to stderr.

    Empty where Pillow's library does not export them.
    """
    try:
        library = ctypes.CDLL(_imaging.__file__)
        setters = [library.TIFFSetErrorHandler, library.TIFFSetWarningHandler]
    except (OSError, AttributeError):
        return []
    for setter in setters:
        setter.restype, setter.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    return [*setters]


_LIBTIFF = _libtiff_handlers()
SILENCE = Silence()
"""The one that all threads share."""
