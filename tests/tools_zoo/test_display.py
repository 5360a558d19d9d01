"""What training commands show: live rows on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tools_zoo.training.display import TrainingDisplay
from tools_zoo.training.trainer import Progress


def reached(step: int, total: int, psnr: float) -> Progress:
    return Progress(step, total, 0.0, 0.0, 0.0, "first", {"psnr/input": 20.0, "psnr/output": psnr})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What ``time.monotonic`` says there: its only item."""
    now = [100.0]
    monkeypatch.setattr("tools_zoo.training.display.time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


@pytest.mark.parametrize("colour", ["", "1"])
def test_a_log_has_the_beginning_a_line_a_minute_and_the_end(
    colour: str, clock: list[float], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", colour)
    with TrainingDisplay() as display:
        display.wait_for("first", "second")
        display.show_run(reached(1, 1000, 20))
        for second in range(1, 131):
            clock[0] = 100 + second
            display.show_run(reached(second, 1000, 21))
        display.show_run(reached(1000, 1000, 22))
        display.show_run(reached(1000, 1000, 22))  # the end may be reported twice
        display.show_run(reached(1001, 1100, 22))  # or the end is put off
        display.show_run(reached(1100, 1100, 23))
        display.show("third", 0.5, "50% of its time")  # waits for no other row's minute
    assert capsys.readouterr().out.splitlines() == [
        "first: 1/1000 steps, 20.00 -> 20.00 dB, 0:00:00",
        "first: 60/1000 steps, 20.00 -> 21.00 dB, 0:01:00",
        "first: 120/1000 steps, 20.00 -> 21.00 dB, 0:02:00",
        "first: 1000/1000 steps, 20.00 -> 22.00 dB, 0:02:10",
        "first: 1100/1100 steps, 20.00 -> 23.00 dB, 0:02:10",
        "third: 50% of its time, 0:00:00",
    ]


def test_a_row_that_is_cut_short_says_where(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        with TrainingDisplay() as display:
            display.wait_for("first", "never")
            display.show("first", 0.1, "started")
            clock[0] += 5
            display.show("first", 0.4, "nearly half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert capsys.readouterr().out.splitlines() == ["first: started, 0:00:00", "first: nearly half, 0:00:05"]


def test_a_line_is_there_at_once_and_work_outlasts_its_reader() -> None:
    script = """
import sys
from tools_zoo.training.display import TrainingDisplay
with TrainingDisplay() as display:
    display.show("first", 0.5, "half")
    sys.stdin.readline()
    display.show("second", 0.5, "half")
    display.show("third", 0.5, "half")
print("worked on", file=sys.stderr)
sys.stdout = None
"""
    command, pipe = [sys.executable, "-c", script], subprocess.PIPE
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=buffered) as process:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], 60)[0]
        assert process.stdout.readline() == "first: half, 0:00:00\n"
        process.stdout.close()
        process.stdout = None
        assert process.communicate("go on\n")[1].startswith("worked on")


def test_a_terminal_has_bars_that_stay(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with TrainingDisplay() as display:
        display.wait_for("first", "second")
        display.show("first", 0.25, "[dim] dB")
    *_, first, second = (line for line in capsys.readouterr().out.splitlines() if "━" in line)
    assert "first" in first
    assert first.count("━") == 10  # of forty
    assert "[dim] dB" in first
    assert "waiting" in second
    monkeypatch.setenv("TERM", "dumb")  # a terminal that cannot be drawn on is like a log
    with TrainingDisplay() as display:
        display.show("first", 0.5, "half")
        assert capsys.readouterr().out == "first: half, 0:00:00\n"
