"""What all command lines of the project share: one-line errors, exit codes, progress, and ranges of arguments."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from itertools import accumulate
from shutil import get_terminal_size
from typing import Any, NoReturn
from unicodedata import east_asian_width

from agents.signals import Terminated, exit_code, stoppable, stopped_line

CLEAR_LINE = "\r\x1b[K"
"""Moves a terminal's cursor to the start of its line and empties the line."""
BAR_SECONDS = 0.1
"""Seconds between two updates of a progress bar."""
_BAR = 24  # characters


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    complete: Callable[[], object] | None = None
    """Adds further options when this parser is used: for options whose definition needs slow imports."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, after :attr:`complete`."""
        if self.complete is not None:
            complete, self.complete = self.complete, None
            import_interruptibly()
            complete()
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Print the error and leave with exit code 2."""
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())} (see {self.prog} --help)\n")


def run_guarded(command: Callable[[], int | None], program: str, *, debug: bool = False, stops: bool = True) -> int:
    """Run a command and return its exit code.

    Args:
        command: what to run; None counts as 0.
        program: the name that messages begin with.
        debug: print the traceback of an error before its one line.
        stops: let SIGINT and SIGTERM raise ``KeyboardInterrupt`` meanwhile, unless someone else handles them.

    Returns:
        What the command returned; 2 for an error that one line explains; 1 for a closed pipe; 130 if interrupted, and
        143 if terminated, by SIGTERM.
    """
    try:
        with warnings.catch_warnings(), stoppable() if stops else nullcontext():
            warnings.showwarning = lambda message, *_: print_error(message, program, "warning")
            return int(command() or 0)
    except KeyboardInterrupt as stop:
        number = signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT
        print(stopped_line(number, program), file=sys.stderr)
        return exit_code(number)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError, RuntimeError, MemoryError, ImportError) as error:
        if debug:
            traceback.print_exc()
        unexpected = isinstance(error, RuntimeError) and not debug and program == "imagerestore"
        hint = "; imagerestore --debug COMMAND shows the traceback" if unexpected else ""
        from restore_env.errors import explained  # imports PyTorch

        print_error(f"{explained(error)}{hint}", program)
        return 2


def import_interruptibly() -> None:
    """Import NumPy before PyTorch does: its C code would go on without NumPy, if that import is interrupted."""
    import numpy  # noqa: F401


def print_error(message: object, program: str = "imagerestore", kind: str = "error") -> None:
    """Print one line on standard error."""
    from restore_env.errors import one_line

    clear = CLEAR_LINE if sys.stderr.isatty() else ""  # of a progress bar
    print(f"{clear}{program}: {kind}: {one_line(message)}", file=sys.stderr)


@contextmanager
def progress_bar(label: str, log_seconds: float | None = None) -> Iterator[Callable[[str, float], None]]:
    """Show progress on standard error: a bar on a terminal, which is removed at the end; elsewhere lines, or nothing.

    Args:
        label: what the bar is called, such as the name of a file.
        log_seconds: seconds between two lines where there is no terminal; None for no lines.

    Yields:
        A function that updates the bar by what is being done and the share of all that is done, 0 to 1.
    """
    terminal, began = sys.stderr.isatty(), time.monotonic()
    seconds = BAR_SECONDS if terminal else log_seconds
    due = began

    def show(what: str, share: float) -> None:
        nonlocal due
        now = time.monotonic()
        if seconds is None or now < due:
            return
        due = now + seconds
        elapsed = timedelta(seconds=int(now - began))
        if terminal:
            bar = "#" * round(_BAR * share)
            _write(CLEAR_LINE + _fitted(f"[{bar:-<{_BAR}}] {share:4.0%} {elapsed} {what}  {label}"))
        else:
            _write(f"{' '.join(label.split())}: {what}, {elapsed}\n")

    try:
        yield show
    finally:
        if terminal:
            _write(CLEAR_LINE)


def _write(text: str) -> None:
    with suppress(OSError, ValueError):  # standard error is closed
        sys.stderr.write(text)
        sys.stderr.flush()


def _fitted(text: str) -> str:
    """A text cut to one line of the terminal, without control characters."""
    shown = [character if character.isprintable() else "?" for character in text]
    ends = accumulate(map(cell_width, shown))
    columns = get_terminal_size().columns
    return "".join(character for character, end in zip(shown, ends, strict=True) if end < columns)


def cell_width(text: str) -> int:
    """The number of a terminal's cells that a text takes: two for each wide East Asian character."""
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)


def positive_float(text: str) -> float:
    """Parse an argument that must be a positive number."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value


def non_negative_float(text: str) -> float:
    """Parse an argument that must be a number of 0 or more."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 or more")
    return value


def positive_int(text: str) -> int:
    """Parse an argument that must be a whole number of 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return value
