"""The promises, each a row: how it is tried, how often, and in which share of the time."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np

from benchmarks.soak.promises import equality, interrupting, lasting, scarcity
from benchmarks.soak.promises.commands import Bench
from benchmarks.soak.promises.scarcity import Unavailable

Case = Callable[[int, np.random.Generator], int]
"""Tries a promise by number and generator, and returns how many times; raises ``AssertionError`` if it is broken."""


@dataclass(frozen=True)
class Promise:
    """Something that the package promises."""

    text: str
    prepare: Callable[[Path], Case]
    """Given a folder to work in."""
    unit: str
    """What is counted."""
    wanted: int
    """After so many it has been tried enough."""
    share: int
    """Of the time, where a target of mutated files has 1 for each of its own."""


def of_commands(case: Callable[[Bench, int, np.random.Generator], int]) -> Callable[[Path], Case]:
    """What prepares a case of commands; the rows of a soak share a bench beside their folders."""
    return lambda folder: partial(case, Bench(folder.parent / "bench"))


PROMISES: Mapping[str, Promise] = MappingProxyType(
    {
        "kills": Promise(
            "killed at random moments and repeated, trainings, `levels build` and `restore` end as one run, with no"
            " file left over",
            of_commands(interrupting.kills),
            "kills",
            200,
            45,
        ),
        "signals": Promise(
            "SIGINT and SIGTERM: one line, exit code 130 or 143, a checkpoint, and the run goes on from it",
            of_commands(interrupting.signals),
            "signals",
            40,
            20,
        ),
        "two processes": Promise(
            "of two processes with one output the second is told, and nothing is lost",
            of_commands(interrupting.two_processes),
            "refusals",
            24,
            12,
        ),
        "scarcity": Promise(
            "a full or read-only disk, inputs removed, no memory: one line that names it, nothing half-written",
            of_commands(scarcity.scarcity),
            "runs",
            64,
            28,
        ),
        "trivial tools": Promise("memory stays flat", lasting.trivial_tools, "steps", 10**6, 20),
        "level set": Promise("memory stays flat in a level set", lasting.level_set, "steps", 10**5, 3),
        "making and closing": Promise(
            "closed environments leave no thread, open file or folder",
            lasting.making_and_closing,
            "environments",
            1000,
            4,
        ),
        "equal bits": Promise(
            "same seed, same bits: 1 and 2 threads, processes, hash seeds, single and vector environments",
            equality.equal_bits,
            "tasks",
            24,
            13,
        ),
    }
)
"""What is promised, by name."""


def run_promise(
    name: str, folder: Path, seed: int, first: int = 0, count: int | None = None, seconds: float = 1e9, wanted: int = 0
) -> Iterator[tuple[int, str, str]]:
    """Try a promise until that is enough, or for so many seconds.

    Args:
        name: of the promise, which is part of every case's seed.
        folder: to work in.
        seed: of all cases.
        first: number of the first case.
        count: of cases at most.
        seconds: for all of them; there is one at least.
        wanted: how many times it is tried; 0: as many as its row says.

    Yields:
        Number, outcome and message: "begun" before each case, then "kept" with how many times, "broken" with what
        happened, or "skipped" if the system does not allow it.
    """
    promise = PROMISES[name]
    stream, ends, number, done = zlib.crc32(name.encode()), time.monotonic() + seconds, first, 0
    case = promise.prepare(folder)
    while (count is None or number < first + count) and done < (wanted or promise.wanted):
        yield number, "begun", ""
        try:
            times = case(number, np.random.default_rng([seed, stream, number]))
        except AssertionError as error:
            yield number, "broken", " ".join(str(error).split())
        except Unavailable as reason:
            yield number, "skipped", str(reason)
        else:
            done += times
            yield number, "kept", str(times)
        number += 1
        if time.monotonic() >= ends:
            return
