"""Transitions that were computed after a level set was built, kept in a database beside it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from restore_env.levels.store import LevelError

LIMIT = 1_000_000
"""Transitions that a level set keeps, if they have no pixels: about half a gigabyte."""

Key = tuple[int, tuple[int, ...]]
"""A level and a chain of tools."""


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
    """Nodes of a level set's tree that its arrays do not hold. Several processes may use one file at once.

    Raises:
        LevelError: at each call, if the database cannot be used.

    Args:
        path: of the database; None, or a folder that cannot be written to, keeps nothing.
        limit: number of nodes; when there are more, those that were used least leave, long chains first, and with
            them a tenth, so that this happens rarely.
    """

    def __init__(self, path: Path | None, limit: int = LIMIT) -> None:
        self._path, self._limit = path, limit
        if path is not None and not os.access(path.parent, os.W_OK):
            self._path = None

    def find(self, keys: Sequence[Key]) -> list[Node | None]:
        """The nodes that are kept, None for the others."""
        if self._path is None or not self._path.exists():
            return [None] * len(keys)
        found: list[Node | None] = []
        with self._opened() as database:
            for level, chain in keys:
                row = database.execute(
                    "UPDATE nodes SET used = used + 1 WHERE level = ? AND chain = ?"
                    " RETURNING psnr, score, spectrum, image",
                    (level, _text(chain)),
                ).fetchone()
                found.append(None if row is None else Node(*row))
        return found

    def keep(self, keys: Sequence[Key], nodes: Sequence[Node]) -> None:
        """Add nodes."""
        if self._path is None:
            return
        rows = [
            (level, _text(chain), node.psnr, node.score, node.spectrum, node.image)
            for (level, chain), node in zip(keys, nodes, strict=True)
        ]
        with self._opened() as database:
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
            with closing(sqlite3.connect(str(self._path), timeout=60)) as database, database:
                database.execute("PRAGMA synchronous = OFF")
                database.execute(
                    "CREATE TABLE IF NOT EXISTS nodes (level INTEGER, chain TEXT, psnr REAL, score REAL, spectrum BLOB,"
                    " image BLOB, used INTEGER, UNIQUE (level, chain))"
                )
                yield database
        except sqlite3.Error as error:
            raise LevelError(f"{self._path}: {error}: make it writable, or delete it, if it is damaged") from None


def _text(chain: Sequence[int]) -> str:
    return " ".join(map(str, chain))
