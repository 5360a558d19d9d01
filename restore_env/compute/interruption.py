"""Lets SIGINT and SIGTERM wait until work is at a point where it can be saved."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """What :func:`deferred_signals` yields."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._caught: tuple[int, FrameType | None] | None = None

    @property
    def requested(self) -> bool:
        """Whether a signal waits."""
        return self._caught is not None

    def go_on(self) -> None:
        """Let the signal that waits, if one does, do what it does otherwise: mostly raise ``KeyboardInterrupt``."""
        if self._caught is None:
            return
        (number, frame), self._caught = self._caught, None
        self._restore()
        handler = signal.getsignal(number)
        if callable(handler):
            handler(number, frame)
        else:
            os.kill(os.getpid(), number)

    def _catch(self) -> None:
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if handler not in (None, signal.SIG_IGN):
                self._before[number] = handler
                signal.signal(number, self._wait)

    def _wait(self, number: int, frame: FrameType | None) -> None:
        waits, self._caught = self._caught, (number, frame)
        if waits is not None:  # the second one does not wait
            self.go_on()

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())


@contextmanager
def deferred_signals() -> Iterator[Interruption]:
    """Within this context SIGINT and SIGTERM wait for :meth:`Interruption.go_on`, or for the end of the context.

    A second signal does not wait. Has no effect outside of the main thread, where no signal arrives.
    """
    interruption = Interruption()
    if threading.current_thread() is threading.main_thread():
        interruption._catch()
    try:
        yield interruption
    except BaseException:
        interruption._restore()
        raise
    interruption._restore()
    interruption.go_on()
