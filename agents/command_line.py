"""What all command lines of the project share: one-line errors, exit codes, and arguments that must lie in a range."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any, NoReturn


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    complete: Callable[[], object] | None = None
    """Adds further options when this parser is used: for options whose definition needs slow imports."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, after :attr:`complete`."""
        if self.complete is not None:
            complete, self.complete = self.complete, None
            complete()
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Print the error and leave with exit code 2."""
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())} (see {self.prog} --help)\n")


def run_guarded(command: Callable[[], int | None], program: str, *, debug: bool = False) -> int:
    """Run a command and return its exit code.

    Args:
        command: what to run; None counts as 0.
        program: the name that messages begin with.
        debug: print the traceback of an error before its one line.

    Returns:
        What the command returned; 2 for an error that one line explains; 1 for a closed pipe; 130 if interrupted.
    """
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: print_error(message, program, "warning")
            return int(command() or 0)
    except KeyboardInterrupt:
        print(f"{program}: interrupted; what is written is whole", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError, RuntimeError, MemoryError, ImportError) as error:
        if debug:
            traceback.print_exc()
        unexpected = isinstance(error, RuntimeError) and not debug and program == "imagerestore"
        hint = "; imagerestore --debug COMMAND shows the traceback" if unexpected else ""
        print_error(f"{str(error) or type(error).__name__}{hint}", program)
        return 2


def print_error(message: object, program: str = "imagerestore", kind: str = "error") -> None:
    """Print one line on standard error."""
    print(f"{program}: {kind}: {' '.join(str(message).split())}", file=sys.stderr)


def positive_float(text: str) -> float:
    """Parse an argument that must be a positive number."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value


def positive_int(text: str) -> int:
    """Parse an argument that must be a whole number of 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return value
