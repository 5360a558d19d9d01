"""What SIGINT and SIGTERM do to a command: one line, and exit code 130 or 143, also while modules are imported.

This module imports next to nothing, so that a command can call :func:`stop_at_once` before anything else.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
AGAIN, LONGEST = 0.05, 10.0
"""Seconds after which a signal that came during an import is tried again, and for which it waits at most."""


class Terminated(KeyboardInterrupt):
    """The process has received SIGTERM."""


def exit_code(number: int) -> int:
    """The exit code of a command that a signal has stopped."""
    return 128 + number


def stopped_line(number: int, program: str) -> str:
    """What a command that a signal has stopped says."""
    what = "terminated" if number == signal.SIGTERM else "interrupted"
    return f"{program}: {what}; what is written is whole"


class _AtOnce:
    """A handler that ends the process, for a time in which nothing has begun."""

    def __init__(self, program: str) -> None:
        self.program = program

    def __call__(self, number: int, _: FrameType | None) -> None:
        os.write(2, f"{stopped_line(number, self.program)}\n".encode())
        os._exit(exit_code(number))


def stop_at_once(program: str) -> None:
    """Let SIGINT and SIGTERM end this process with one line, where :func:`stoppable` says nothing else."""
    handler = _AtOnce(program)
    for number in SIGNALS:
        if _is_default(number):
            signal.signal(number, handler)


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGINT raise ``KeyboardInterrupt`` and SIGTERM :class:`Terminated`, unless someone else handles them.

    During an import they wait: C code may turn an exception there into another one, or end the process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    outside, waits = _imports(), _Waiting()

    def stop(number: int, _: FrameType | None) -> None:
        if _imports() > outside and waits.again(number):
            return
        raise waits.over(number)

    before = {number: signal.signal(number, stop) for number in SIGNALS if _is_default(number)}
    try:
        try:
            yield
        except Exception:
            if waits.number is None:
                raise
        if waits.number is not None:  # the end, or an error, came first
            raise waits.over(waits.number)
    finally:
        waits.over()
        for number, handler in before.items():
            signal.signal(number, handler)


class _Waiting:
    """A signal that waits for the end of an import."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._until, self._timer = 0.0, threading.Timer(0, int)

    def again(self, number: int) -> bool:
        """Let the process receive the signal once more a little later; false if it has waited long enough."""
        now = time.monotonic()
        self._until = self._until if self.number is not None else now + LONGEST
        if now >= self._until:
            return False
        self.number, self._timer = number, threading.Timer(AGAIN, os.kill, (os.getpid(), number))
        self._timer.daemon = True
        self._timer.start()
        return True

    def over(self, number: int | None = None) -> KeyboardInterrupt:
        """Wait no more, and return what the signal raises."""
        self._timer.cancel()
        self.number = None
        return Terminated() if number == signal.SIGTERM else KeyboardInterrupt()


def _is_default(number: int) -> bool:
    """Whether nobody but Python and this module handles a signal."""
    handler = signal.getsignal(number)
    return handler in (signal.SIG_DFL, signal.default_int_handler) or isinstance(handler, _AtOnce)


def _imports() -> int:
    """How many frames of the stack are those of an import."""
    frame, count = sys._getframe(1), 0
    while frame is not None:
        count += frame.f_code.co_filename.startswith("<frozen importlib")
        frame = frame.f_back  # type: ignore[assignment]
    return count
