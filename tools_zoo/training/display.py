"""Display of running trainings: live progress bars on a terminal, lines in a log."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import TaskID

    from tools_zoo.training.trainer import Progress

LINE_SECONDS = 60.0
"""Seconds between two lines of a row where there is no terminal."""


def measured(metrics: Mapping[str, float]) -> str:
    """A validation in words: PSNR before and after, then other measures."""
    before = metrics.get("psnr/input", metrics.get("psnr/bicubic"))
    words = [] if before is None else [f"{before:.2f} -> {metrics['psnr/output']:.2f} dB"]
    kinds = {tag: tag.partition("/") for tag in metrics}
    others = [f"{kind} {metrics[tag]:.3f}" for tag, (kind, _, which) in kinds.items() if which == "output"]
    return ", ".join([*words, *(other for other in others if not other.startswith("psnr"))])


class TrainingDisplay:
    """Progress of a training on standard output, a row for each of its runs.

    On a terminal the rows are live, with bars. Elsewhere, as in a log, a row is a line at its start, a line a minute,
    and a line at its end. If standard output is closed, training continues without output.

    Args:
        waiting: rows to show from the start.
    """

    def __init__(self, *waiting: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        console = Console()
        watched = console.is_interactive and sys.stdout.isatty()  # Rich takes FORCE_COLOR for a terminal
        columns = (
            TextColumn("{task.description:<10}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[said]}", markup=False),
            TimeElapsedColumn(),
        )
        self._live = Progress(*columns, console=console, disable=not watched)
        self._rows: dict[str, _Row] = {}
        self._closed = False
        for name in waiting:
            self._add(name)

    def __enter__(self) -> TrainingDisplay:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
        for row in self._rows.values():
            if not (row.done or row.printed):
                self._print(row)

    def show(self, name: str, share: float | None, said: str) -> None:
        """Bring a row up to date.

        Args:
            name: of the row; a new one joins at the end.
            share: how much of it is done, 0 to 1; None: not known yet.
            said: in words.
        """
        row = self._rows[name] if name in self._rows else self._add(name)
        now = time.monotonic()
        if row.began is None:
            row.began = now
            self._live.start_task(row.task)
        self._live.update(row.task, completed=share or 0.0, total=None if share is None else 1.0, said=said)
        done = share is not None and share >= 1
        row.line, row.printed = f"{name}: {said}, {timedelta(seconds=int(now - row.began))}", False
        if now >= row.due or (done and not row.done):
            self._print(row)
            row.due = now + LINE_SECONDS
        row.done = done

    def wait_for(self, *names: str) -> None:
        """Add rows that have not started."""
        for name in names:
            self._add(name)

    def show_run(self, progress: Progress) -> None:
        """Update the row of a run with its steps and latest validation."""
        self.show_steps(progress.name.replace("-", " "), progress, measured(progress.metrics))

    def show_steps(self, name: str, progress: Progress, quality: str) -> None:
        """Bring a row up to date that counts steps."""
        share = None if progress.total is None else progress.step / progress.total
        steps = str(progress.step) if progress.total is None else f"{progress.step}/{progress.total}"
        self.show(name, share, ", ".join(filter(None, (f"{steps} {progress.unit}", quality))))

    def _print(self, row: _Row) -> None:
        """Print a row's line, unless the rows are live or no one can read it."""
        if self._live.disable and not self._closed:
            try:
                print(row.line, flush=True)
            except OSError:
                self._closed = True
        row.printed = True

    def _add(self, name: str) -> _Row:
        row = self._rows[name] = _Row(self._live.add_task(name, total=None, start=False, said="waiting"))
        return row


@dataclass
class _Row:
    task: TaskID
    began: float | None = None
    line: str = ""
    printed: bool = True
    """Whether its line has been printed."""
    due: float = -math.inf
    """When the next one is due."""
    done: bool = False
