"""The command line: ``imagerestore``. One line and exit code 2 for whatever a person can mend."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn

COMMANDS = ("restore", "evaluate", "explain", "demo", "train", "import_rl_restore", "export")
"""Modules of :mod:`agents.commands`; each has ``register(subparsers)``."""


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Print the error and leave with exit code 2."""
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    parser = OneLineParser(
        prog="imagerestore", description="Restore photographs by chains of small tools that a learned agent composes."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        importlib.import_module(f"agents.commands.{name}").register(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code, as :func:`run_guarded` gives it."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be text
    parsed = build_parser().parse_args(arguments)
    return run_guarded(lambda: parsed.run(parsed), "imagerestore")


def _show_warning(program: str, message: Warning | str, *_: object) -> None:
    print(f"{program}: warning: {' '.join(str(message).split())}", file=sys.stderr)


def run_guarded(command: Callable[[], int | None], program: str) -> int:
    """Run a command and return the exit code: 0 done, 2 a mistake that one line explains, 130 interrupted."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = partial(_show_warning, program)
            return int(command() or 0)
    except KeyboardInterrupt:
        print(f"{program}: interrupted; what is written is whole", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError, RuntimeError, MemoryError, ImportError) as error:
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"{program}: error: {message}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
