"""Watches one use of a file: its error, its time, its memory, what it prints and imports."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from restore_env.errors import LONGEST, ImageRestoreError

MOST_SECONDS, MOST_BYTES = 5.0, 2**30
"""Of processor time, and of memory beyond what there was before."""
FORBIDDEN = ("antigravity", "this")
"""Modules that mutations name and nothing else imports."""


def fault_of(use: Callable[[], object]) -> tuple[str, str]:
    """Use a file.

    Returns:
        What became of it, "used" or "refused" or what is wrong with it; and its message.
    """
    before, clock = _memory(peak=False), time.process_time()
    outcome, message = "used", ""
    with _captured() as printed:
        try:
            use()
        except Exception as error:  # any that it should not be is what is looked for
            outcome, message = "refused", str(error)
            expected = isinstance(error, ImageRestoreError) or type(error) is ValueError
            if not expected:
                outcome, message = type(error).__name__, f"{message} {_place(error)}"
            elif len(message) > LONGEST + 200 or not message.isprintable() or not message:
                outcome = "odd message"
        seconds = time.process_time() - clock
    output = printed()
    if output:
        outcome, message = "printed", output
    if any(module in sys.modules for module in FORBIDDEN):
        outcome = "imported"
    if seconds > MOST_SECONDS:
        outcome, message = "slow", f"{seconds:.1f} s, {message}"
    grown = _memory(peak=True) - before
    if grown > MOST_BYTES:
        outcome, message = "large", f"{grown / 2**30:.1f} GiB, {message}"
    return outcome, message


def _place(error: Exception) -> str:
    """The last line of code of the error's traceback."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"({Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno})"


@contextmanager
def _captured() -> Iterator[Callable[[], str]]:
    """Standard output and standard error, as file descriptors, into a file; yields what reads it."""
    with tempfile.TemporaryFile() as file:
        sys.stdout.flush()
        sys.stderr.flush()
        saved = [(number, os.dup(number)) for number in (1, 2)]
        for number, _ in saved:
            os.dup2(file.fileno(), number)
        text = ""

        def read() -> str:
            return text

        try:
            yield read
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, copy in saved:
                os.dup2(copy, number)
                os.close(copy)
            file.seek(0)
            text = file.read().decode("utf-8", "replace")


def _memory(*, peak: bool) -> int:
    """Bytes of memory of this process now, or at most since the last call of it without ``peak``; 0 if unknown."""
    try:
        if not peak:
            Path("/proc/self/clear_refs").write_text("5")
        wanted = "VmHWM:" if peak else "VmRSS:"
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(wanted))
    except (OSError, StopIteration):
        return 0
