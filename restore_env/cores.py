"""Many small computations, each on a core of its own, in place of one after the other on all cores.

PyTorch spreads every layer over its threads, and at the end of each all wait for the slowest, and for the next one. A
step of many environments is many small batches that have nothing to do with one another: with a core for each nobody
waits.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import TypeVar

import torch

Result = TypeVar("Result")

MOST_WORKERS = 8
"""Python runs one thread at a time between PyTorch's operations: more would wait for one another."""


class Cores:
    """The processor's cores, to be had one by one.

    Within :meth:`apart` PyTorch computes on the calling thread alone, and :meth:`run` hands out jobs to as many others
    as PyTorch has threads outside. Outside, jobs run in turn, each on all cores.
    """

    def __init__(self) -> None:
        self._threads = 1

    @contextmanager
    def apart(self) -> Iterator[None]:
        """For a while have the cores one by one; calls may be nested."""
        threads = torch.get_num_threads()
        if threads == 1:
            yield
            return
        self._threads = threads
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            self._threads = 1

    @property
    def count(self) -> int:
        """How many jobs run at the same time."""
        return min(self._threads, MOST_WORKERS)

    def run(self, jobs: Sequence[Callable[[], Result]]) -> list[Result]:
        """Run jobs without gradients, the first ones first, and return their results in their order.

        Args:
            jobs: within :meth:`apart` they must bear to be run at the same time.
        """
        if self._threads == 1 or len(jobs) < 2:
            return [_without_gradients(job) for job in jobs]
        automatic, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

        def on_its_own(job: Callable[[], Result]) -> Result:
            with torch.autocast("cpu", dtype, enabled=automatic):  # each thread has its own
                return _without_gradients(job)

        return list(_workers(self._threads, os.getpid()).map(on_its_own, jobs))


@torch.inference_mode()
def _without_gradients(job: Callable[[], Result]) -> Result:
    return job()


@lru_cache(maxsize=1)
def _workers(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads on which PyTorch computes alone, or on its share of the cores; those of another process do not exist."""
    count = min(threads, MOST_WORKERS)
    pool = ThreadPoolExecutor(count, "tools", lambda: torch.set_num_threads(threads // count))
    ready = threading.Barrier(count)
    list(pool.map(lambda _: ready.wait(), range(count)))  # all begin now: PyTorch hands their setting on to new threads
    return pool
