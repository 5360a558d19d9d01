"""Atomic writing of files."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_atomically(path: str | os.PathLike[str], data: bytes, *, replace: bool = True) -> None:
    """Write to a temporary file beside ``path``, then rename it: readers find the old file or the whole new one.

    Raises:
        FileExistsError: without ``replace``, if there is a file, even if another process has made it just now.
    """
    path = Path(path)
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with temporary.open("xb") as file:
            file.write(data)
        if replace:
            temporary.replace(path)
        else:
            _rename_to_new(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _rename_to_new(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links: reserve the name
        path.open("xb").close()
        temporary.replace(path)
    else:
        temporary.unlink()
