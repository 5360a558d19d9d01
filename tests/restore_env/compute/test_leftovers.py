"""What killed processes leave is swept; what running ones need is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from restore_env.compute import leftovers
from restore_env.compute.leftovers import part_file, sweep_folders, sweep_parts, temporary_folder
from restore_env.images.cache import PixelCache

pytest.importorskip("fcntl")

BUSY = """
import sys
from pathlib import Path
from restore_env.compute.leftovers import part_file, temporary_folder
folder, lock = temporary_folder()
(folder / "photo.npy").write_bytes(b"pixels")
with part_file(Path(sys.argv[1])) as (path, file):
    file.write(b"half")
    file.flush()
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(leftovers, "YOUNG", -1.0)
    return tmp_path


def sweep(place: Path) -> list[str]:
    leftovers._SWEPT.clear()
    sweep_folders()
    sweep_parts(place)
    return sorted(path.name for path in place.rglob("*") if path.name != ".lock")


def test_only_what_dead_processes_left_is_swept(place: Path) -> None:
    command = [sys.executable, "-c", BUSY, str(place)]
    environment = {**os.environ, "TMPDIR": str(place), "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        left = sweep(place)
        assert len(left) == 3, left  # the folder, the photograph in it, and the half-written file
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.communicate()
    assert sweep(place) == []


def test_other_peoples_files_stay(place: Path) -> None:
    target = place / "target"
    target.mkdir()
    (target / ".lock").touch()
    (place / "imagerestore-link").symlink_to(target)
    (place / "imagerestore-unlocked").mkdir()  # of another program, or of an earlier version
    (place / ".other.part").touch()
    (place / ".imagerestore-link.part").symlink_to(place / ".other.part")
    before = sorted(place.rglob("*"))
    sweep(place)
    assert sorted(place.rglob("*")) == before


def test_young_files_may_not_be_locked_yet(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "YOUNG", 60.0)
    (place / ".imagerestore-0123.part").touch()
    assert sweep(place) == [".imagerestore-0123.part"]
    os.utime(place / ".imagerestore-0123.part", (0, 0))
    sweep_parts(place)  # looks again, because there was a young one
    assert not list(place.iterdir())


def test_a_folder_whose_process_died_before_it_was_locked_is_swept(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / ".imagerestore-0123").mkdir()
    monkeypatch.setattr(leftovers, "YOUNG", 60.0)
    assert sweep(place) == [".imagerestore-0123"]
    os.utime(place / ".imagerestore-0123", (0, 0))
    assert sweep(place) == []


def test_what_cannot_be_deleted_stays(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    names = [f".imagerestore-{number}.part" for number in range(2)]
    for name in names:
        (place / name).touch()
    monkeypatch.setattr(Path, "unlink", refuse)
    assert sweep(place) == names


def test_a_new_cache_sweeps(place: Path) -> None:
    folder, lock = temporary_folder()
    lock.close()  # as if its process had ended
    cache = PixelCache()
    assert not folder.exists()
    with part_file(place) as (path, file):
        assert path.exists()
    assert file.closed
    assert not path.exists()
    del cache
    assert sweep(place) == []
