"""Model cards: Markdown files next to weights, with sections that benchmarks fill in later."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from restore_env.images.files import write_atomically


def write_card(card: Path, text: str, sections: Sequence[str] = ()) -> None:
    """Write a model card that ends with empty ``sections``; what stands in them already is kept.

    Args:
        card: the Markdown file.
        text: everything above the sections.
        sections: names for :func:`replace_section`.
    """
    parts = [text.rstrip()]
    for section in sections:
        begin, end = _marks(section)
        try:
            kept = _around(card, section)[1]
        except (FileNotFoundError, ValueError):
            kept = "\n"
        parts.append(f"{begin}{kept}{end}")
    write_atomically(card, ("\n\n".join(parts) + "\n").encode())


@cache
def source_version() -> str:
    """The version of this package, with the commit where it runs from a checkout, as it was when first asked for."""
    try:
        text = f"imagerestore {version('imagerestore')}"
    except PackageNotFoundError:
        text = "imagerestore"
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commands = ([*git, "ls-files", "--error-unmatch", __file__], [*git, "rev-parse", "--short=12", "HEAD"])
        outputs = [subprocess.run(c, capture_output=True, text=True, timeout=5, check=True).stdout for c in commands]
    except (OSError, subprocess.SubprocessError):
        return text
    return f"{text}, commit {outputs[1].strip()}"


def replace_section(card: Path, section: str, text: str) -> None:
    """Put ``text`` between ``<!-- section:begin -->`` and ``<!-- section:end -->``.

    The file changes whole or not at all.

    Raises:
        ValueError: the file has no such marks, or not in this order.
    """
    begin, end = _marks(section)
    before, _, after = _around(card, section)
    write_atomically(card, f"{before}{begin}\n{text.strip()}\n{end}{after}".encode())


def check_section(card: Path, section: str) -> None:
    """Raise ``ValueError`` now if :func:`replace_section` would, after long work, do so later."""
    _around(card, section)


def command_line(program: str, arguments: Sequence[str]) -> str:
    """The command that repeats a run, absolute paths made relative to the working directory.

    Call it at the start of a run: it also fixes :func:`source_version`, so that later commits do not count.
    """
    source_version()
    words = [os.path.relpath(word) if Path(word).is_absolute() else word for word in arguments]
    return shlex.join([*program.split(), *words])


def _marks(section: str) -> tuple[str, str]:
    return f"<!-- {section}:begin -->", f"<!-- {section}:end -->"


def _around(card: Path, section: str) -> tuple[str, str, str]:
    """The card's text before a section's marks, between them, and after them."""
    begin, end = _marks(section)
    text = card.read_text(encoding="utf-8")
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"{card}: expected {begin} and, after it, {end}, once each")
    before, rest = text.split(begin)
    return before, *rest.split(end)  # type: ignore[return-value]
