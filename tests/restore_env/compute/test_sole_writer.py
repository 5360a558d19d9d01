"""One process at a time writes into a folder."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from restore_env.compute.sole_writer import BusyError, sole_writer

pytest.importorskip("fcntl")


def enter(folder: Path) -> None:
    with sole_writer(folder):
        pass


def test_the_second_is_told_and_the_next_may_write(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with sole_writer(folder):
        with pytest.raises(BusyError, match="b: another process is writing there"):
            enter(folder)
        enter(tmp_path / "a")
        (folder / "file").touch()
    enter(folder)
    assert (folder / "file").exists()


def test_nothing_is_left_where_nothing_was_written(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    enter(tmp_path / "own")
    enter(tmp_path / "a" / "b")
    with pytest.raises(ValueError, match="wrong"), sole_writer(tmp_path / "c"):
        raise ValueError("wrong")
    assert list(tmp_path.iterdir()) == [tmp_path / "own"]


def test_a_file_system_without_locks_locks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    with sole_writer(tmp_path / "a"):
        enter(tmp_path / "a")
    monkeypatch.setattr("restore_env.compute.sole_writer.fcntl", None)
    with sole_writer(tmp_path / "a"):
        enter(tmp_path / "a")
