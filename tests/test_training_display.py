"""What training commands show: live rows on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import re

import pytest

from agents.commands.training import TrainingDisplay
from tools_zoo.fitting import Progress


def glance(step: int, total: int | None) -> Progress:
    return Progress(step, total, loss=0.0, learning_rate=0.0, seconds=0.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What ``time.monotonic`` says there: its only item."""
    now = [100.0]
    monkeypatch.setattr("agents.commands.training.time.monotonic", lambda: now[0])
    return now


def test_a_log_has_the_beginning_a_line_a_minute_and_the_end(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with TrainingDisplay("first", "second") as display:
        display.show_steps("first", glance(1, None), "20 dB")
        for second in range(1, 131):
            clock[0] = 100 + second
            display.show_steps("first", glance(second, 1000), "21 dB")
        display.show_steps("first", glance(1000, 1000), "22 dB")
        display.show_steps("first", glance(1000, 1000), "22 dB")  # a look at the end may come twice
        display.show_steps("first", glance(1001, 1100), "22 dB")  # or the end is put off
        display.show_steps("first", glance(1100, 1100), "23 dB")
        display.show("third", 0.5, "50% of its time")  # waits for no other row's minute
    assert capsys.readouterr().out.splitlines() == [
        "first: 1 steps, 20 dB, 0:00:00",
        "first: 60/1000 steps, 21 dB, 0:01:00",
        "first: 120/1000 steps, 21 dB, 0:02:00",
        "first: 1000/1000 steps, 22 dB, 0:02:10",
        "first: 1100/1100 steps, 23 dB, 0:02:10",
        "third: 50% of its time, 0:00:00",
    ]


def test_a_terminal_has_bars_that_stay(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with TrainingDisplay("first", "second") as display:
        display.show_steps("first", glance(1000, 1000), "[22] dB")
    *_, first, second = (line for line in capsys.readouterr().out.splitlines() if "━" in line)
    assert re.search("first .*━.* 1000/1000 steps, \\[22] dB", first)
    assert "waiting" in second
