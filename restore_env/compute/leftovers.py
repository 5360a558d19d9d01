"""What killed processes leave, temporary folders and half-written files: swept when the next process needs one."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # on Windows, where nothing is swept
    fcntl = None  # type: ignore[assignment]

_PART, _FOLDER, _LOCK = ".imagerestore-*.part", "imagerestore-*", ".lock"
"""Names of files that are being written, of temporary folders, and of the file in each that its process has locked."""
YOUNG = 5.0
"""Seconds for which a file that is being written need not be locked: just made, or just closed and not yet renamed."""
_SWEPT: set[Path] = set()


@contextlib.contextmanager
def part_file(folder: Path) -> Iterator[tuple[Path, Any]]:
    """A new file in a folder, open for writing; it is deleted if it is still there at the end.

    Yields:
        Its path and the open file.
    """
    sweep_parts(folder)
    path = folder / _PART.replace("*", secrets.token_hex(8))
    try:
        with path.open("xb") as file:
            _lock(file)
            yield path, file
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def temporary_folder() -> tuple[Path, Any]:
    """Make a temporary folder of this process; those of processes that have ended are deleted.

    Returns:
        The folder, and its locked file, which must be kept open for as long as the folder is needed.
    """
    sweep_folders()
    made = Path(tempfile.mkdtemp(prefix=f".{_FOLDER[:-1]}"))
    lock = (made / _LOCK).open("wb")
    _lock(lock)
    folder = made.with_name(made.name[1:])  # from now on the folder is swept, once its lock is free
    made.rename(folder)
    return folder, lock


def sweep_folders() -> None:
    """Delete temporary folders whose processes have ended without doing so."""
    if fcntl is None:
        return
    for folder in Path(tempfile.gettempdir()).glob(_FOLDER):
        with contextlib.suppress(OSError):
            if _is_own_folder(folder.lstat()):
                with _unlocked(folder / _LOCK) as free:
                    if free:
                        shutil.rmtree(folder, ignore_errors=True)
    for folder in Path(tempfile.gettempdir()).glob(f".{_FOLDER}"):  # just made, or never locked
        with contextlib.suppress(OSError):
            status = folder.lstat()
            if _is_own_folder(status) and time.time() - status.st_mtime > YOUNG:
                shutil.rmtree(folder, ignore_errors=True)


def _is_own_folder(status: os.stat_result) -> bool:
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()


def sweep_parts(folder: Path) -> None:
    """Delete what killed processes were writing in a folder; a process looks until there is nothing that is young."""
    folder = folder.absolute()
    if fcntl is None or folder in _SWEPT:
        return
    _SWEPT.add(folder)
    for part in folder.glob(_PART):
        with contextlib.suppress(OSError):
            if time.time() - part.lstat().st_mtime <= YOUNG:
                _SWEPT.discard(folder)
                continue
            with _unlocked(part) as free:
                if free:
                    part.unlink(missing_ok=True)


def _lock(file: Any) -> None:
    """Lock an open file until it is closed or the process ends, where the file system can."""
    if fcntl is not None:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def _unlocked(path: Path) -> Iterator[bool]:
    """Whether no process has locked a file of one's own; within the context, this one has."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(os.fdopen(os.open(path, os.O_RDWR | os.O_NOFOLLOW), "rb+"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except OSError:
            free = False
        yield free
