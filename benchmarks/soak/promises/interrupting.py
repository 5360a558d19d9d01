"""Commands that are killed, told to stop, or started twice at random moments, and then repeated."""

from __future__ import annotations

import signal
import time

import numpy as np

from agents.signals import exit_code, stopped_line
from benchmarks.soak.promises.commands import COMMANDS, OUT, Bench, age_parts, chosen, words
from benchmarks.soak.promises.forks import Ended

KILLS = 8
"""Of a run, one after the other, before it is let go on to its end."""
ENDING = 0.1
"""Seconds after a signal in which a command may end as if it had come too late."""
TOLD, EXISTS = "another process is writing there", "exists"


def kills(bench: Bench, number: int, rng: np.random.Generator) -> int:
    """SIGKILL at moments of a run, each time repeated: at the end all is as if nothing had happened."""
    name, place, count = chosen(list(COMMANDS), number), bench.place(), 0
    seconds = bench.whole(name).seconds
    for _ in range(KILLS):
        running = bench.forks.start(words(name), place)
        time.sleep(float(rng.uniform(0, seconds)))
        running.send(signal.SIGKILL)
        ended = bench.forks.wait(running)
        assert ended.code in (0, -signal.SIGKILL), f"{name}: {ended}"
        count += ended.code == -signal.SIGKILL
        age_parts(place)
    bench.check(name, place)
    return count


def signals(bench: Bench, number: int, rng: np.random.Generator) -> int:
    """SIGINT or SIGTERM at a moment of a run: one line, the exit code, a checkpoint; then the run goes on."""
    name, place = chosen(list(COMMANDS), number), bench.place()
    which = signal.SIGINT if number // len(COMMANDS) % 2 else signal.SIGTERM
    seconds = bench.whole(name).seconds
    running = bench.forks.start(words(name), place)
    moment = float(rng.uniform(0, seconds))
    time.sleep(moment)
    late = running.send(which)
    ended = bench.forks.wait(running)
    if not ended.code and (late or ended.seconds < moment + ENDING):
        bench.compare(name, place)
        return 0
    found, wanted = (ended.code, ended.messages), (exit_code(which), [stopped_line(which, "imagerestore")])
    assert found == wanted, f"{name}: {ended}"
    for log in (place / OUT / "logs").glob("*"):
        own = place / OUT / ("checkpoint.pt" if log.is_file() else f"checkpoints/{log.name}.pt")
        assert own.exists(), f"{name} was stopped without a checkpoint {own.name}"
    bench.check(name, place)
    return 1


def two_processes(bench: Bench, number: int, rng: np.random.Generator) -> int:
    """The same command twice at a time: the second is told, and nothing is lost."""
    name, place = chosen(list(COMMANDS), number), bench.place()
    seconds = bench.whole(name).seconds
    first = bench.forks.start(words(name), place)
    time.sleep(float(rng.uniform(0, seconds)))
    second = bench.forks.start(words(name), place)
    both = [bench.forks.wait(running) for running in (first, second)]
    told = [ended for ended in both if ended.code]
    for ended in told:
        assert _is_told(ended, name), f"{name}: {ended}"
    assert len(told) < 2 or name == "restore", f"{name}: both were refused: {both}"
    bench.compare(name, place)
    return len(told)


def _is_told(ended: Ended, name: str) -> bool:
    lines = ended.messages
    if name != "restore":
        return ended.code == 2 and len(lines) == 1 and TOLD in lines[0]
    return ended.code in (1, 2) and all(EXISTS in line for line in lines)
