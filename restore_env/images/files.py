"""Finding image files, and writing files atomically."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

from restore_env.compute.leftovers import part_file
from restore_env.images.formats import SUFFIXES


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """Image files below a folder, by their suffix, sorted by path."""
    return sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def write_atomically(
    path: str | os.PathLike[str], data: bytes | Callable[[IO[bytes]], object], *, replace: bool = True
) -> None:
    """Write to a temporary file beside ``path``, then rename it: readers find the old file or the whole new one.

    Args:
        path: the file.
        data: what is written, or a function that writes it.
        replace: whether there may be a file.

    Raises:
        FileExistsError: without ``replace``, if there is a file, even if another process has made it just now.
        OSError: the file cannot be written; the error names ``path``.
    """
    path = Path(path)
    try:
        with part_file(path.parent) as (temporary, file):
            if callable(data):
                data(file)
            else:
                file.write(data)
            file.close()
            if replace:
                temporary.replace(path)
            else:
                _rename_to_new(temporary, path)
    except OSError as error:  # such as a full disk, which names no file
        raise type(error)(error.errno, error.strerror or str(error), str(path)) from None


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
