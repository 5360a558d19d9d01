"""All trainings of a benchmark: which there are, several at once, each kept as a file when it is finished."""

from __future__ import annotations

import json
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.agents.algorithms import ALGORITHMS
from benchmarks.agents.reference import RECIPE, imitate
from benchmarks.agents.training import Run, Setting, digest, reinforce
from restore_env.compute.worker_pool import one_thread
from restore_env.images.files import write_atomically

IMITATION = "imitation"


class Training(NamedTuple):
    """One training that is to be done, and the file of its result."""

    name: str
    """A key of :data:`ALGORITHMS`, or :data:`IMITATION`."""
    seed: int
    file: Path


def train(setting: Setting, name: str, seed: int) -> Run:
    """Train and evaluate one agent on one thread."""
    with one_thread():
        return imitate(setting, seed) if name == IMITATION else reinforce(ALGORITHMS[name], setting, seed)


def read_run(file: Path) -> Run | None:
    """A kept run; None if there is none, or another version's."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        return Run(**{**values, "curve": tuple((int(steps), float(score)) for steps, score in values["curve"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def plan(setting: Setting, names: Sequence[str], seeds: int, folder: Path) -> list[Training]:
    """All trainings, a seed after the other; those with other hyperparameters or level sets have other files."""
    marks = {name: digest(setting, ALGORITHMS.get(name, RECIPE)) for name in names}
    return [
        Training(name, seed, folder / f"{name}-{seed}-{marks[name]}.json") for seed in range(seeds) for name in names
    ]


def finished(setting: Setting, trainings: Sequence[Training], jobs: int) -> Iterator[tuple[Training, Run]]:
    """Do trainings, so many at once, each as soon as it is done.

    Raises:
        RuntimeError: one failed; those that were going on are finished and lost.
    """
    if jobs == 1 or len(trainings) < 2:
        for training in trainings:
            yield training, _named(training, partial(train, setting, training.name, training.seed))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(trainings)), context, torch.set_num_threads, (1,)) as pool:
        running = {pool.submit(train, setting, one.name, one.seed): one for one in trainings}
        try:
            for done in as_completed(running):
                yield running[done], _named(running[done], done.result)
        finally:
            pool.shutdown(cancel_futures=True)


def _named(training: Training, result: Callable[[], Run]) -> Run:
    """A result; an error says whose it is."""
    try:
        return result()
    except (ValueError, RuntimeError, MemoryError) as error:
        raise RuntimeError(f"{training.name}, seed {training.seed}: {error or type(error).__name__}") from error


def measure(setting: Setting, names: Sequence[str], seeds: int, folder: Path, jobs: int) -> dict[str, list[Run]]:
    """The runs of every algorithm, in the order of its seeds; what is kept is not trained again."""
    trainings = plan(setting, names, seeds, folder)
    results = {(one.name, one.seed): read_run(one.file) for one in trainings}
    missing = [one for one in trainings if results[one.name, one.seed] is None]
    done = len(trainings) - len(missing)
    if done:
        print(f"{done} of {len(trainings)} runs are kept in {folder}", file=sys.stderr, flush=True)
    for training, result in finished(setting, missing, jobs):
        done += 1
        results[training.name, training.seed] = result
        write_atomically(training.file, (json.dumps(asdict(result)) + "\n").encode())
        line = f"{training.name}, seed {training.seed}: score {result.score:.3f}, {result.seconds:.0f} s"
        print(f"[{done}/{len(trainings)}] {line}", file=sys.stderr, flush=True)
    return {name: [run for seed in range(seeds) if (run := results[name, seed])] for name in names}
