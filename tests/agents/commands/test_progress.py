"""Progress of commands on standard error: a bar on a terminal, lines now and then elsewhere."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from agents.command_line import CLEAR_LINE, cell_width, print_error, progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What ``time.monotonic`` says there: its only item."""
    now = [100.0]
    monkeypatch.setattr("agents.command_line.time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Standard error, a terminal of 80 columns."""
    stream = Terminal()
    monkeypatch.setattr("agents.command_line.sys", SimpleNamespace(stderr=stream))
    monkeypatch.setenv("COLUMNS", "80")
    return stream


def test_a_terminal_has_a_bar_that_disappears(clock: list[float], terminal: Terminal) -> None:
    with progress_bar("photo.jpg") as show:
        show("reading", 0.0)
        show("too soon", 0.1)
        clock[0] += 61
        show("denoise_1", 0.5)
    shown = terminal.getvalue().split(CLEAR_LINE)
    assert shown == [
        "",
        f"[{'-' * 24}]   0% 0:00:00 reading  photo.jpg",
        f"[{'#' * 12}{'-' * 12}]  50% 0:01:01 denoise_1  photo.jpg",
        "",
    ]


@pytest.mark.parametrize("name", ["a" * 200, "写" * 200, "a\x1b[2J\nb" * 40])
def test_a_bar_never_leaves_its_line(name: str, terminal: Terminal) -> None:
    with progress_bar(name) as show:
        show("reading", 1.0)
    line = terminal.getvalue().split(CLEAR_LINE)[1]
    assert 77 < cell_width(line) < 80
    assert line.isprintable()


@pytest.mark.usefixtures("clock")
def test_messages_replace_the_bar(terminal: Terminal) -> None:
    with progress_bar("photo.jpg") as show:
        show("reading", 0.0)
        print_error("it is grey", kind="warning")
    assert terminal.getvalue().endswith(f"photo.jpg{CLEAR_LINE}imagerestore: warning: it is grey\n{CLEAR_LINE}")


def test_elsewhere_there_are_lines_if_asked_for(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    for seconds in (None, 60.0):
        with progress_bar("levels", seconds) as show:
            for done in range(121):
                show(f"{done} of 120", done / 120)
                clock[0] += 1
    assert capsys.readouterr().err.splitlines() == [
        "levels: 0 of 120, 0:00:00",
        "levels: 60 of 120, 0:01:00",
        "levels: 120 of 120, 0:02:00",
    ]


def test_work_goes_on_when_standard_error_is_closed(terminal: Terminal) -> None:
    with progress_bar("photo.jpg") as show:
        terminal.close()
        show("reading", 0.0)
