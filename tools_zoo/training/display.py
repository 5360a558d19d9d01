"""Display of running trainings: live progress bars on a terminal, lines in a log."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from restore_env.extras import require_extra

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
    and a line at its end. If standard output is closed, training continues without output. Needs the extra ``train``.
    """

    def __init__(self) -> None:
        require_extra("train", "training")
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        console = Console()
        terminal = console.is_interactive and sys.stdout.isatty()  # Rich takes FORCE_COLOR for a terminal
        columns = (
            TextColumn("{task.description:<10}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[text]}", markup=False),
            TimeElapsedColumn(),
        )
        self._live = Progress(*columns, console=console, disable=not terminal)
        self._rows: dict[str, _Row] = {}

    def __enter__(self) -> TrainingDisplay:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
        for row in self._rows.values():
            if not row.done:
                self._print(row)

    def wait_for(self, *names: str) -> None:
        """Add rows that have not started."""
        for name in names:
            self._rows[name] = _Row(self._live.add_task(name, total=None, start=False, text="waiting"))

    def show(self, name: str, share: float, text: str) -> None:
        """Update a row.

        Args:
            name: of the row; a new one joins at the end.
            share: how much of it is done, 0 to 1.
            text: what it has reached.
        """
        if name not in self._rows:
            self.wait_for(name)
        row, now = self._rows[name], time.monotonic()
        if row.began is None:
            row.began = now
            self._live.start_task(row.task)
        self._live.update(row.task, completed=share, total=1.0, text=text)
        done = share >= 1
        row.line = f"{name}: {text}, {timedelta(seconds=int(now - row.began))}"
        if now >= row.due or (done and not row.done):
            self._print(row)
            row.due = now + LINE_SECONDS
        row.done = done

    def show_run(self, progress: Progress) -> None:
        """Update the row of a run with its steps and latest validation."""
        steps = f"{progress.step}/{progress.total} {progress.unit}"
        text = ", ".join(filter(None, (steps, measured(progress.metrics))))
        self.show(progress.name.replace("-", " "), progress.step / progress.total, text)

    def _print(self, row: _Row) -> None:
        """Print a row's line if it is new, the rows are not live, and standard output is open."""
        if self._live.disable and row.line:
            with suppress(OSError):
                print(row.line, flush=True)
        row.line = ""


@dataclass
class _Row:
    task: TaskID
    began: float | None = None
    line: str = ""
    """What has not been printed."""
    due: float = -math.inf
    """When the next line is due."""
    done: bool = False
