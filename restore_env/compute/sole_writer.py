"""Lets one process at a time write into a folder; a second one is told so."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from restore_env.errors import ImageRestoreError

try:
    import fcntl
except ImportError:  # on Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]


class BusyError(ImageRestoreError):
    """A folder that another process is writing into; one line that names it."""


@contextlib.contextmanager
def sole_writer(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Make a folder if it is missing, and lock it for this process; a process that ends in any way unlocks it.

    A folder that was made and is still empty at the end is removed. File systems without locks lock nothing.

    Raises:
        BusyError: another process has locked it.
        OSError: the folder cannot be made.
    """
    folder = Path(folder)
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _locked(folder):
            yield
    finally:
        for each in missing:
            with contextlib.suppress(OSError):
                each.rmdir()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                message = "another process is writing there: wait until it has ended, or choose another folder"
                raise BusyError(f"{folder}: {message}") from None
        yield
    finally:
        os.close(descriptor)
