"""Where a benchmark's numbers go: the terminal, a JSON file, a section of a Markdown card with the command under it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from restore_env.images.figures import check_figure
from restore_env.images.files import write_atomically
from tools_zoo.training.cards import check_section, command_line, replace_section, source_version

COMMAND, VERSION, TABLES = "command", "version", "tables"
"""What every JSON file holds besides the numbers: the command that made it, the version that ran, the tables it printed
(Markdown)."""

FIGURES = ("figure", "modulations")
"""The arguments of benchmarks that name figures."""


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Add ``--json`` and ``--card``."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here, too")
    parser.add_argument("--card", type=Path, metavar="FILE", help="Markdown file whose section the tables replace")


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse a benchmark's arguments (None: the process's own); ``command_line`` is the command that repeats it."""
    parsed = parser.parse_args(arguments)
    parsed.command_line = command_line(f"python -m {parser.prog}", sys.argv[1:] if arguments is None else arguments)
    return parsed


def check_outputs(arguments: argparse.Namespace, section: str) -> None:
    """Raise ``ValueError`` now if :func:`publish` or a figure would, after long work, do so later.

    Figures' folders are made.
    """
    if arguments.json is not None and not arguments.json.parent.is_dir():
        raise ValueError(f"{arguments.json.parent}: no such folder")
    if arguments.card is not None:
        check_section(arguments.card, section)
    for figure in (getattr(arguments, name, None) for name in FIGURES):
        if figure is not None:
            check_figure(figure)
            figure.parent.mkdir(parents=True, exist_ok=True)


def publish(arguments: argparse.Namespace, section: str, text: str, record: Mapping[str, Any]) -> None:
    """Print the text; write the record and the card's section where that was asked for, whole or not at all.

    Args:
        arguments: has ``json``, ``card`` and ``command_line``, the command that repeats it all.
        section: of the card.
        text: Markdown.
        record: the same as plain numbers; the command, the version and the text are put in front.
    """
    print(text)
    if arguments.json is not None:
        whole = {COMMAND: arguments.command_line, VERSION: source_version(), TABLES: text, **record}
        write_atomically(arguments.json, (json.dumps(whole, indent=2) + "\n").encode())
    if arguments.card is not None:
        replace_section(arguments.card, section, f"{text}\n\n```\n{arguments.command_line}\n```")
