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
from functools import cache
from typing import TypeVar

import torch

Result = TypeVar("Result")

PIECE_PIXELS = 8 * 64 * 64
"""Pixels that a core works on at a time. What they are between two layers stays in its cache, and the memory for it is
used again and again, where for a large batch the system clears new pages in every layer."""
MOST_WORKERS = 8
"""Python runs one thread at a time between PyTorch's operations: more would wait for one another."""


class WorkerPool:
    """The processor's cores, to be had one by one.

    Within :meth:`single_threaded` PyTorch computes on the calling thread alone, and :meth:`run` hands out jobs to as
    many others
    as PyTorch has threads outside. Outside, jobs run in turn, each on all cores.
    """

    def __init__(self) -> None:
        self._threads = 1

    @contextmanager
    def single_threaded(self) -> Iterator[None]:
        """For a while have the cores one by one; calls may be nested."""
        threads = torch.get_num_threads()
        if threads == 1 or getattr(_THREAD, "works", False):
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

    def run(self, jobs: Sequence[Callable[[], Result]]) -> Iterator[Result]:
        """Run jobs, the first ones first; their results in their order, as they come.

        Args:
            jobs: within :meth:`single_threaded` they must bear to be run at the same time.
        """
        if self._threads == 1 or len(jobs) < 2:
            return (job() for job in jobs)
        inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()
        automatic, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

        def as_here(job: Callable[[], Result]) -> Result:
            """Every thread has PyTorch's modes to itself."""
            with (
                torch.inference_mode(inference),
                torch.set_grad_enabled(gradients),
                torch.autocast("cpu", dtype, enabled=automatic),
            ):
                return job()

        return _workers(self._threads, os.getpid()).map(as_here, jobs)


_THREAD = threading.local()


@cache
def _workers(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads on which PyTorch computes alone, or on its share of the cores; those of another process do not exist."""
    count = min(threads, MOST_WORKERS)
    ready = threading.Barrier(count)

    def begin() -> None:
        _THREAD.works = True
        torch.set_num_threads(threads // count)
        ready.wait()  # PyTorch hands the number on to new threads: it must be set before the caller sets its own again

    pool = ThreadPoolExecutor(count, "tools", begin)
    list(pool.map(int, range(count)))
    return pool
