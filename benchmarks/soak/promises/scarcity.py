"""Commands that run out of disk or memory, may not write, or lose what they read."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.soak.promises.commands import COMMANDS, INPUTS, OUT, Bench, chosen, left, words, written
from benchmarks.soak.promises.forks import Ended

MOUNT, UNMOUNT = (shutil.which(name) or f"/bin/{name}" for name in ("mount", "umount"))
DISK = "disk"
"""Folder of a case that is a small file system."""
WORK = "work"
"""Folder of a case beside inputs of its own."""
LEAST, MOST = 2**20, 2**28
"""Bytes of address space that a command may have beyond what it begins with."""
NO_MEMORY = ("not enough memory", "allocate", "can't start new thread")
OF_THE_C_LIBRARY = (127, "cannot allocate memory for thread-local data: ABORT\n")
"""How glibc ends a process that lacks memory for a new thread, whatever the program would say."""


class Unavailable(Exception):  # noqa: N818 - no error
    """This system does not allow what a case needs."""


def scarcity(bench: Bench, number: int, rng: np.random.Generator) -> int:
    """One of the four kinds, in turn, for a command: one line that names it, and nothing half-written."""
    name = chosen(list(COMMANDS), number // len(KINDS))
    KINDS[chosen(list(KINDS), number)](bench, name, rng)
    return 1


def full_disk(bench: Bench, name: str, rng: np.random.Generator) -> None:
    """A file system with room for a part of what is written."""
    place, out = bench.place(), f"{DISK}/{OUT}"
    size = int(rng.uniform(0.05, 1.1) * bench.whole(name).size) + 2**14
    with file_system(place / DISK, f"size={size}"):
        ended = bench.forks.run(words(name, out), place)
        _check_line(ended, name, ("No space left", "cannot"), DISK)
        found = written(name, place, out)  # each can be read
        assert not left(place), f"{name} leaves {left(place)}"
        if not ended.code:
            assert found.keys() == bench.whole(name).files.keys(), f"{name} ended well with {sorted(found)}"
        subprocess.run([MOUNT, "-o", "remount,size=1g", str(place / DISK)], check=True)
        bench.check(name, place, out)


def read_only(bench: Bench, name: str, rng: np.random.Generator) -> None:
    """A file system that cannot be written to, from the start or from some moment on."""
    place, out = bench.place(), f"{DISK}/{OUT}"
    with file_system(place / DISK, "size=1g"):
        moment = float(rng.uniform(-0.3, 1)) * bench.whole(name).seconds
        remount = [MOUNT, "-o", "remount,ro", str(place / DISK)]
        if moment < 0:
            subprocess.run(remount, check=True)
        running = bench.forks.start(words(name, out), place)
        time.sleep(max(0.0, moment))
        done = moment < 0
        while not done:  # not while a file is open for writing
            done = not subprocess.run(remount, check=False, stderr=subprocess.DEVNULL).returncode
        ended = bench.forks.wait(running)
        _check_line(ended, name, ("Read-only", "cannot"), DISK)
        subprocess.run([MOUNT, "-o", "remount,rw", str(place / DISK)], check=True)
        bench.check(name, place, out)


def input_removed(bench: Bench, name: str, rng: np.random.Generator) -> None:
    """All that a command reads is deleted at some moment."""
    inputs, place = bench.place(), bench.place(f"case/{WORK}")

    def give() -> None:
        for each in INPUTS:
            shutil.copytree(bench.folder / each, inputs / each)

    give()
    running = bench.forks.start(words(name), place)
    time.sleep(float(rng.uniform(0, bench.whole(name).seconds)))
    for each in INPUTS:
        shutil.rmtree(inputs / each)
    _check_line(bench.forks.wait(running), name, INPUTS)
    give()
    bench.check(name, place, without="levels.json")  # which names the folders


def memory_limit(bench: Bench, name: str, rng: np.random.Generator) -> None:
    """A limit on the address space."""
    place = bench.place()
    allowed = int(np.exp(rng.uniform(np.log(LEAST), np.log(MOST))))
    ended = bench.forks.run(words(name), place, memory=allowed)
    if (ended.code, ended.err) != OF_THE_C_LIBRARY:
        _check_line(ended, name, NO_MEMORY)
    bench.check(name, place)


KINDS = {
    "full disk": full_disk,
    "read-only": read_only,
    "input removed": input_removed,
    "memory": memory_limit,
}
"""What may be scarce."""


def _check_line(ended: Ended, name: str, wanted: tuple[str, ...], place: str = "") -> None:
    """A command that has failed says so in one line, which names what is wrong; ``restore`` in one for each file."""
    lines = ended.messages
    named = all(line.startswith("imagerestore: error: ") and any(word in line for word in wanted) for line in lines)
    named = named and all(place in line for line in lines)
    several = name == "restore" and len(lines) > 0
    fine = not lines if not ended.code else ended.code in (1, 2) and named and (len(lines) == 1 or several)
    assert fine, f"{name}: exit code {ended.code}, {ended.err[-600:]!r}"


@contextmanager
def file_system(folder: Path, options: str) -> Iterator[None]:
    """A file system in memory.

    Raises:
        Unavailable: this process may not mount one.
    """
    folder.mkdir()
    mount = [MOUNT, "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except OSError as error:
        raise Unavailable(f"no file system can be mounted here ({error})") from None
    if done.returncode:
        raise Unavailable(f"no file system can be mounted here ({done.stderr.strip()})")
    try:
        yield
    finally:
        subprocess.run([UNMOUNT, "-l", str(folder)], check=True)
