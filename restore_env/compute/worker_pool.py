"""A pool of threads that runs many small computations in parallel, one per core.

PyTorch splits every layer over its threads, which wait for each other after each layer. A step of many environments
consists of many small independent batches; running each on its own core avoids these waits.
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
"""Pixels in a batch for one core: small enough that activations stay in its cache and their memory is reused."""
MOST_WORKERS = 8
"""Maximal number of threads; more would wait for Python's global lock between PyTorch's operations."""


class WorkerPool:
    """Runs jobs in parallel, one per core, within :meth:`single_threaded`; outside, in turn, each on all cores.

    Within :meth:`single_threaded` PyTorch uses one thread per job.
    """

    def __init__(self) -> None:
        self._threads = 1

    @contextmanager
    def single_threaded(self) -> Iterator[None]:
        """Let PyTorch use one thread per job within this context, which may be nested."""
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
        """Number of jobs that run at once."""
        return min(self._threads, MOST_WORKERS)

    def run(self, jobs: Sequence[Callable[[], Result]]) -> Iterator[Result]:
        """Run jobs and yield their results in order.

        Args:
            jobs: functions without arguments; within :meth:`single_threaded` they must be thread-safe.
        """
        if self._threads == 1 or len(jobs) < 2:
            return (job() for job in jobs)
        inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()
        automatic, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

        def in_same_modes(job: Callable[[], Result]) -> Result:
            """Run a job with the caller's PyTorch modes, which belong to a thread."""
            with (
                torch.inference_mode(inference),
                torch.set_grad_enabled(gradients),
                torch.autocast("cpu", dtype, enabled=automatic),
            ):
                return job()

        return _workers(self._threads, os.getpid()).map(in_same_modes, jobs)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch use one thread within this context: in small batches its threads wait more than they work."""
    threads = torch.get_num_threads()
    if threads > 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if threads > 1:
            torch.set_num_threads(threads)


_THREAD = threading.local()


@cache
def _workers(threads: int, process: int) -> ThreadPoolExecutor:
    """The threads of a process, each with its share of PyTorch's threads; a forked process needs its own."""
    count = min(threads, MOST_WORKERS)
    ready = threading.Barrier(count)

    def begin() -> None:
        _THREAD.works = True
        torch.set_num_threads(threads // count)
        ready.wait()  # new threads inherit PyTorch's number of threads, so it is set before the caller resets its own

    pool = ThreadPoolExecutor(count, "tools", begin)
    list(pool.map(int, range(count)))
    return pool
