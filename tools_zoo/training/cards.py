"""Model cards (Markdown files next to weights), and what they say of the code that ran."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from restore_env.images.files import write_atomically


def write_card(card: Path, text: str) -> None:
    """Write a model card, whole or not at all; of names of files that are not text, bytes are written as escapes."""
    write_atomically(card, f"{text.rstrip()}\n".encode(errors="backslashreplace"))


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


def command_line(program: str, arguments: Sequence[str]) -> str:
    """The command that repeats a run, absolute paths made relative to the working directory.

    Call it at the start of a run: it also fixes :func:`source_version`, so that later commits do not count.
    """
    source_version()
    words = [os.path.relpath(word) if Path(word).is_absolute() else word for word in arguments]
    return shlex.join([*program.split(), *words])
