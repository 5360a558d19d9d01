"""Signals that wait."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from restore_env.compute.interruption import Interruption, deferred_signals

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(params=SIGNALS)
def number(request: pytest.FixtureRequest) -> Iterator[int]:
    """A signal that raises KeyboardInterrupt, whatever the shell has made of it."""
    before = [signal.signal(each, signal.default_int_handler) for each in SIGNALS]
    yield request.param
    assert [signal.getsignal(each) for each in SIGNALS] == [signal.default_int_handler] * 2
    for each, handler in zip(SIGNALS, before, strict=True):
        signal.signal(each, handler)


def receive(number: int, times: int, done: list[str], goes_on: bool) -> None:
    with deferred_signals() as interruption:
        interruption.go_on()
        for time in range(times):
            os.kill(os.getpid(), number)
            done.append(f"received {time + 1}, {interruption.requested}")
        if goes_on:
            interruption.go_on()
            done.append("not reached")
        done.append("the end")


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_signal_waits_for_its_point_or_the_end(number: int, goes_on: bool) -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        receive(number, 1, done, goes_on)
    assert done == ["received 1, True", *([] if goes_on else ["the end"])]


def test_a_second_signal_does_not_wait(number: int) -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        receive(number, 2, done, False)
    assert done == ["received 1, True"]


def test_other_threads_are_left_alone() -> None:
    seen: list[Interruption] = []

    def work() -> None:
        with deferred_signals() as interruption:
            interruption.go_on()
            seen.append(interruption)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen
