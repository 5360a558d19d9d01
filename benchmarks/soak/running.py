"""Runs the cases of a target, each a function of the target, the seed and its number."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.soak.mutations import mutated
from benchmarks.soak.targets import Target
from benchmarks.soak.watching import fault_of

FINE = ("used", "refused", "kept", "skipped")
"""What should become of a case."""


def run_cases(
    target: Target, name: str, folder: Path, seed: int, first: int = 0, count: int | None = None, seconds: float = 1e9
) -> Iterator[tuple[int, str, str]]:
    """Run cases until there are so many, or for so many seconds.

    Args:
        target: what uses the files.
        name: of the target, which is part of every case's seed.
        folder: to work in.
        seed: of all cases.
        first: number of the first case.
        count: of cases; None: as many as there is time for.
        seconds: for all of them.

    Yields:
        Number, outcome and message: "begun" before each case, then what became of it.
    """
    files, use = target.prepare(folder)
    stream, ends, number = zlib.crc32(name.encode()), time.monotonic() + seconds, first
    while (count is None or number < first + count) and time.monotonic() < ends:
        yield number, "begun", ""
        rng = np.random.default_rng([seed, stream, number])
        data = mutated(files[int(rng.integers(len(files)))], target.mutations, rng)
        yield number, *fault_of(partial(use, data, rng))
        number += 1
