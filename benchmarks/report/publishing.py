"""Output of benchmarks: Markdown on the terminal, and a JSON file with the command that repeats it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from restore_env.images.files import write_atomically
from tools_zoo.figures import check_figure
from tools_zoo.training.cards import command_line, source_version

COMMAND, VERSION, TABLES = "command", "version", "tables"
"""The entries of every JSON file besides the numbers: command, version of the code, printed tables (Markdown)."""


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here, too")


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse a benchmark's arguments (None: the process's own); ``command_line`` is the command that repeats it."""
    parsed = parser.parse_args(arguments)
    parsed.command_line = command_line(f"python -m {parser.prog}", sys.argv[1:] if arguments is None else arguments)
    return parsed


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[object]], left: int = 1) -> list[str]:
    """A table as lines of Markdown; all columns but the first ``left`` ones are aligned to the right."""
    marks = [*["---"] * left, *["---:"] * (len(heads) - left)]
    return [f"| {' | '.join(map(str, cells))} |" for cells in (heads, marks, *rows)]


def check_outputs(arguments: argparse.Namespace) -> None:
    """Raise ``ValueError`` if the JSON file or a figure could not be written later; make the figures' folders."""
    if arguments.json is not None and not arguments.json.parent.is_dir():
        raise ValueError(f"{arguments.json.parent}: no such folder")
    for name in ("figure", "crops"):
        path = getattr(arguments, name, None)
        if path is not None:
            check_figure(path)
            path.parent.mkdir(parents=True, exist_ok=True)


def publish(arguments: argparse.Namespace, text: str, record: Mapping[str, Any]) -> None:
    """Print the text, and write the record where that was asked for, whole or not at all.

    Args:
        arguments: has ``json`` and ``command_line``, the command that repeats it all.
        text: Markdown.
        record: the same as plain numbers; the command, the version and the text are put in front.
    """
    print(text)
    if arguments.json is not None:
        whole = {COMMAND: arguments.command_line, VERSION: source_version(), TABLES: text, **record}
        write_atomically(arguments.json, (json.dumps(whole, indent=2) + "\n").encode())
