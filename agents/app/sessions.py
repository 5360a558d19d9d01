"""The files of the page's visitors: a folder for each, which goes when the visitor does."""

from __future__ import annotations

import secrets
import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path

from agents.app.views import View


@dataclass
class Session:
    """What the server keeps of one visitor."""

    folder: Path
    """Of the visitor's files."""
    uploads: set[Path] = field(default_factory=set)
    """Files that the visitor has uploaded; another visitor's equal file may be the same."""
    views: list[View] = field(default_factory=list)
    """What can be shown of the latest restoration."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Set to end the visitor's work."""

    def new_folder(self) -> Path:
        """Make a folder for the next restoration, in place of those of earlier ones."""
        for earlier in self.folder.iterdir():
            shutil.rmtree(earlier, ignore_errors=True)
        self.views = []
        folder = self.folder / secrets.token_hex(4)  # a new name: browsers keep pictures by their address
        folder.mkdir()
        return folder


class Sessions:
    """The visitors by the id of their session. Safe in several threads.

    Args:
        root: folder of the visitors' folders.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def get(self, key: str) -> Session:
        """The session of an id, which is opened if it is new."""
        with self._lock:
            if key not in self._sessions:
                folder = self._root / secrets.token_hex(16)  # nobody else can guess where files are
                folder.mkdir(parents=True)
                self._sessions[key] = Session(folder)
            return self._sessions[key]

    def close(self, key: str) -> None:
        """End a session's work, and remove its files but for uploads that another session has, too."""
        with self._lock:
            session = self._sessions.pop(key, None)
            if session is None:
                return
            session.stop.set()
            others = [other.uploads for other in self._sessions.values()]
        shutil.rmtree(session.folder, ignore_errors=True)
        for upload in session.uploads.difference(*others):
            upload.unlink(missing_ok=True)
