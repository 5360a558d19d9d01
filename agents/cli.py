"""The command line ``imagerestore``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from agents.signals import stop_at_once

if TYPE_CHECKING:
    import argparse

COMMANDS = ("restore", "evaluate", "explain", "app", "demo", "train", "levels", "import_rl_restore", "export")
"""Modules of :mod:`agents.commands`; each has ``register(subparsers)``."""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    import importlib

    from agents.command_line import OneLineParser

    parser = OneLineParser(
        prog="imagerestore", description="Restore photographs by chains of small tools that a learned agent composes."
    )
    parser.add_argument("--version", action="version", version=f"imagerestore {_version()}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error, too")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        importlib.import_module(f"agents.commands.{name}").register(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code, as :func:`agents.command_line.run_guarded` gives it.

    Args:
        arguments: None: those of this process, which is nothing but the command, so that a signal may end it.
    """
    if arguments is None:
        stop_at_once("imagerestore")  # before all imports: these take a while
    import argparse
    import io

    from agents.command_line import import_interruptibly, run_guarded

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be text
    words = sys.argv[1:] if arguments is None else list(arguments)
    parsed = argparse.Namespace(words=words)

    def parse() -> None:
        build_parser().parse_args(words, parsed)  # for some commands this imports PyTorch and can be interrupted, too

    failed = run_guarded(parse, "imagerestore", stops=arguments is not None)
    if failed:
        return failed

    def run() -> int | None:
        import_interruptibly()
        code: int | None = parsed.run(parsed)
        return code

    return run_guarded(run, "imagerestore", debug=parsed.debug)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("imagerestore")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
