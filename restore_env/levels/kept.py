"""Transitions that were computed after a level set was built, kept in a database beside it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from restore_env.levels.store import LevelError

try:
    import fcntl
except ImportError:  # not on Windows, where every process writes
    fcntl = None  # type: ignore[assignment]

LIMIT = 1_000_000
"""Transitions that a level set keeps, if they have no pixels: about half a gigabyte."""

_KINDS: tuple[tuple[type, ...], ...] = ((int, float), (int, float), (bytes,), (bytes,))  # of a node's values
Key = tuple[int, tuple[int, ...]]
"""A level and a chain of tools."""


LOCK = ".lock"
"""Suffix of the file beside the database that the process which writes has locked."""
_OWNED: dict[Path, tuple[int, int]] = {}
"""Databases that this process writes, each with its process (a fork is another) and the locked file's descriptor."""
_FIND = "SELECT psnr, score, spectrum, image FROM nodes WHERE level = ? AND chain = ?"


@dataclass(frozen=True)
class Node:
    """The image after a chain."""

    psnr: float
    """dB."""
    score: float
    """By the reward's metric."""
    spectrum: bytes
    """Codes of the compact observation."""
    image: bytes
    """The observed patch, uint8; empty if it is not kept."""


class KeptTransitions:
    """Nodes of a level set's tree that its arrays do not hold, in a file that many processes may use at once.

    The first process that has something to keep writes the file as long as it lives; the others, also on other machines
    that share the folder, read it.

    Raises:
        LevelError: at each call, if the database cannot be used.

    Args:
        path: of the database; None keeps nothing, and a folder that cannot be written to nothing new.
        limit: number of nodes; when there are more, those that were used least leave, long chains first, and with
            them a tenth, so that this happens rarely.
    """

    def __init__(self, path: Path | None, limit: int = LIMIT) -> None:
        self._path, self._limit = None if path is None else path.absolute(), limit
        self._writable = path is not None and os.access(path.parent, os.W_OK)

    def find(self, keys: Sequence[Key]) -> list[Node | None]:
        """The nodes that are kept, None for the others."""
        if self._path is None or not self._path.exists():
            return [None] * len(keys)
        found: list[Node | None] = []
        with self._opened() as database:
            if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'nodes'").fetchone():
                return [None] * len(keys)
            rows = [(level, _text(chain)) for level, chain in keys]
            for row in rows:
                values = database.execute(_FIND, row).fetchone()
                if values is not None and not all(map(isinstance, values, _KINDS)):
                    raise TypeError("damaged")
                found.append(None if values is None else Node(*values))
            if self._path in _OWNED and _owns(self._path):
                database.executemany("UPDATE nodes SET used = used + 1 WHERE level = ? AND chain = ?", rows)
        return found

    def keep(self, keys: Sequence[Key], nodes: Sequence[Node]) -> None:
        """Add nodes, unless another process does so."""
        if self._path is None or not self._writable or not _owns(self._path):
            return
        rows = [
            (level, _text(chain), node.psnr, node.score, node.spectrum, node.image)
            for (level, chain), node in zip(keys, nodes, strict=True)
        ]
        with self._opened() as database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS nodes (level INTEGER, chain TEXT, psnr REAL, score REAL, spectrum BLOB,"
                " image BLOB, used INTEGER, UNIQUE (level, chain))"
            )
            database.executemany("INSERT OR IGNORE INTO nodes VALUES (?, ?, ?, ?, ?, ?, 0)", rows)
            (count,) = database.execute("SELECT COUNT(*) FROM nodes").fetchone()
            if count > self._limit:
                database.execute(
                    "DELETE FROM nodes WHERE rowid IN"
                    " (SELECT rowid FROM nodes ORDER BY used, LENGTH(chain) DESC, rowid LIMIT ?)",
                    (count - self._limit + self._limit // 10,),
                )

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """The database for one transaction; a connection must not cross a fork, so each call has its own."""
        try:
            assert self._path is not None
            address = f"{self._path.as_uri()}?mode={'rwc' if self._writable else 'ro'}"
            with closing(sqlite3.connect(address, timeout=60, uri=True)) as database, database:
                database.execute("PRAGMA synchronous = OFF")
                yield database
        except (sqlite3.Error, ValueError, TypeError) as error:  # of a damaged file, texts that are none
            raise LevelError(f"{self._path}: {error}: make it writable, or delete it, if it is damaged") from None


def _owns(path: Path) -> bool:
    """Whether this process writes a database; it does from now on if no other one does."""
    process, _ = _OWNED.get(path, (0, None))
    if process == os.getpid() or fcntl is None:
        return True
    try:
        descriptor = os.open(path.with_suffix(LOCK), os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:  # the folder is gone, or another user's
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return False
    _OWNED[path] = os.getpid(), descriptor
    return True


def _text(chain: Sequence[int]) -> str:
    return " ".join(map(str, chain))
