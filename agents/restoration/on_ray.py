"""Restores the files of a run by Ray Data, on this machine or a cluster: workers that each hold one restorer.

The jobs are planned and checked where the command runs; a worker reads, restores and writes a file in one place, and
sends back only what became of it. So photographs and results must lie where all machines see them by the same path.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agents.restoration.files import Job
from agents.restoration.jobs import JobOptions, JobRunner, Outcome, failed
from restore_env import __version__
from restore_env.errors import ImageRestoreError

MOST_JOBS_PER_TASK = 16
"""Ray spends milliseconds on each task, whatever is in it; results are told when a task has ended."""
TASKS_PER_WORKER = 8
"""Tasks that a worker gets at least, if there are enough jobs, so that all end at about the same time."""
RETRIES = (1, 2)
"""How often Ray repeats a task whose worker has died: a task of several jobs, and then of one."""
REACHED_SECONDS = 10.0
"""Seconds within which a cluster's address must answer."""
_STORE_BYTES = 100 * 2**20  # of a local Ray's object store: names and outcomes are small
_FATAL = "fatal"


class RayError(ImageRestoreError, ValueError):
    """Ray cannot be used, or a worker cannot restore anything; one line."""


class RayWorker:
    """What Ray runs on each core or GPU: restores the jobs that it is called with.

    Args:
        folder: the working folder of the command, from which the names of files begin.
        version: of this package where the command runs.
        options: of the run.
        restorer: arguments of :class:`agents.restoration.restorer.Restorer`.
    """

    def __init__(self, folder: str, version: str, options: JobOptions, restorer: Mapping[str, Any]) -> None:
        from agents.restoration.restorer import Restorer

        self._unusable, machine = "", os.uname().nodename
        if version != __version__:
            self._unusable = (
                f"{os.uname().nodename}: has version {__version__}, the command {version}: install the same"
            )
        try:
            os.chdir(folder)
        except OSError as error:
            self._unusable = f"{machine}: {folder}: {error.strerror}: all machines need the same folders"
        self._runner = JobRunner(options, lambda: Restorer(**restorer))

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Restore a file: a row of number and job becomes one of number and outcome."""
        job = _job_of(row["job"])
        try:
            outcome = {_FATAL: self._unusable} if self._unusable else asdict(self._runner.run(job))
        except Exception as error:  # of the restorer, so of every file
            outcome = {_FATAL: " ".join(str(error).split()) or type(error).__name__}
        return {"number": row["number"], "outcome": json.dumps(outcome)}


def restore_on_ray(
    jobs: Sequence[Job],
    options: JobOptions,
    restorer: Mapping[str, Any],
    *,
    address: str | None = None,
    workers: int | None = None,
) -> Generator[tuple[Job, Outcome], None, None]:
    """Restore files, and yield each with what became of it, as workers finish them.

    If a worker dies, Ray starts another one and repeats its task. Results that the dead one has written are found to be
    the same. Jobs of a task that has cost several workers (:data:`RETRIES`) are then tried one by one; what still kills
    its workers, fails.

    Args:
        jobs: without standard streams, checked by :func:`agents.restoration.jobs.check_job`.
        options: of the run; ``repeated`` must be set.
        restorer: arguments of :class:`agents.restoration.restorer.Restorer`.
        address: of a running Ray cluster, or "auto"; None: Ray is started on this machine, for this run.
        workers: number of workers; None: one for each CPU, or for each GPU with ``device="cuda"``.

    Raises:
        RayError: Ray cannot be reached or fails, or no worker can restore anything.
    """
    import ray

    gpu = str(restorer.get("device", "cpu")).startswith("cuda")
    with _without_native_messages(), _connected(address, workers) as resources:
        slots = int(resources.get("GPU" if gpu else "CPU", 0))
        if slots == 0:
            raise RayError(f"--ray: the cluster has no {'GPU' if gpu else 'CPU'}")
        count = min(workers or slots, slots)
        worker = (str(Path.cwd()), __version__, options, dict(restorer))
        pending = dict(enumerate(jobs))
        most = len(jobs) // (count * TASKS_PER_WORKER)
        try:
            for per_task, retries in zip((min(max(most, 1), MOST_JOBS_PER_TASK), 1), RETRIES, strict=True):
                for number, outcome in _run(dict(pending), worker, count, per_task, retries, gpu) if pending else ():
                    yield pending.pop(number), outcome
        except ray.exceptions.RayError as error:
            raise RayError(f"--ray: {' '.join(str(error).split())}") from error
        for job in pending.values():
            yield job, failed(job, f"{RETRIES[-1] + 1} workers that restored it died")


def _run(
    jobs: Mapping[int, Job], worker: tuple[Any, ...], count: int, per_task: int, retries: int, gpu: bool
) -> Iterator[tuple[int, Outcome]]:
    """Send jobs through Ray Data; those that killed their workers are missing from what comes back."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = -1
    tasks = -(-len(jobs) // per_task)
    rows = [{"number": number, "job": _text_of(job)} for number, job in jobs.items()]
    in_flight = 2 if per_task > 1 else 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of max_task_retries, which has no other name yet
        outcomes = ray.data.from_items(rows, override_num_blocks=tasks).map(
            RayWorker,
            fn_constructor_args=worker,
            compute=ray.data.ActorPoolStrategy(size=min(count, tasks), max_tasks_in_flight_per_actor=in_flight),
            num_cpus=1,
            num_gpus=1 if gpu else None,
            max_task_retries=retries,
        )
    for row in outcomes.iter_rows():
        outcome = json.loads(row["outcome"])
        if _FATAL in outcome:
            raise RayError(outcome[_FATAL])
        yield int(row["number"]), Outcome(**outcome)


@contextmanager
def _connected(address: str | None, workers: int | None) -> Iterator[Mapping[str, float]]:
    """A connection to Ray, as silent as the command is without it; yields the cluster's resources."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to Ray's authors
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray
    import ray.data

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    terminate = signal.getsignal(signal.SIGTERM)
    try:
        if address is None:
            machine = {"num_cpus": workers or os.cpu_count(), "object_store_memory": _STORE_BYTES}
            ray.init(address="local", include_dashboard=False, **machine, **quiet)
        else:
            _check_reachable(address)
            ray.init(address=address, **quiet)
        if terminate is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, terminate)  # Ray has replaced it
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        ray._private.worker._worker_logs_enabled = False  # it prints deaths of workers on standard output
        yield ray.cluster_resources()
    except (OSError, ray.exceptions.RaySystemError) as error:
        raise RayError(f"{f'--ray {address}' if address else '--ray'}: {' '.join(str(error).split())}") from error
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise ``OSError`` if nothing listens at HOST:PORT: Ray would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), REACHED_SECONDS).close()


@contextmanager
def _without_native_messages() -> Iterator[None]:
    """Let Python alone write to standard error: Ray's C++ code prints there, too, and has log files."""
    if sys.stderr is None:
        yield
        return
    stream, descriptor = sys.stderr, 2
    stream.flush()
    kept = os.dup(descriptor)
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), descriptor)
    sys.stderr = os.fdopen(os.dup(kept), "w", buffering=1, errors="backslashreplace")
    try:
        yield
    finally:
        sys.stderr.close()
        sys.stderr = stream
        os.dup2(kept, descriptor)
        os.close(kept)


def _text_of(job: Job) -> str:
    return json.dumps({name: str(value) if isinstance(value, Path) else value for name, value in asdict(job).items()})


def _job_of(text: str) -> Job:
    values = json.loads(text)
    paths = {name: None if values[name] is None else Path(values[name]) for name in ("source", "output", "sheet")}
    return Job(**{**values, **paths})
