"""Where the time of a long call goes: functions are replaced by ones that note how long they take."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import torch

from restore_env.toolbox import FunctionTool, Tool, Toolbox

Key = TypeVar("Key", str, float)

CLOCKS: Mapping[str, Callable[[], float]] = MappingProxyType({"wall": time.perf_counter, "cpu": time.process_time})
"""Seconds of the world, or of the processor: of all the process's threads, and little changed by other processes."""


class Stopwatch:
    """Adds up the time of the functions that are watched, by the name of what they are part of.

    Args:
        clock: a key of :data:`CLOCKS`.

    Raises:
        ValueError: an unknown clock.
    """

    def __init__(self, clock: str = "wall") -> None:
        if clock not in CLOCKS:
            raise ValueError(f"unknown clock {clock!r}: choose from {', '.join(CLOCKS)}")
        self._clock = CLOCKS[clock]
        self.seconds: dict[str, float] = {}

    def now(self) -> float:
        """Seconds by the clock, when a GPU has done what it was asked for."""
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.synchronize()
        return self._clock()

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its time added to ``part``."""
        self.seconds.setdefault(part, 0.0)

        def run(*arguments: Any, **named: Any) -> Any:
            began = self.now()
            try:
                return function(*arguments, **named)
            finally:
                self.seconds[part] += self.now() - began

        return run

    def watch(self, owner: Any, method: str, part: str) -> None:
        """Replace a method of one object by itself, timed."""
        setattr(owner, method, self.timed(part, getattr(owner, method)))

    def timed_toolbox(self, part: str, toolbox: Toolbox) -> Toolbox:
        """The toolbox with timed tools, where it is."""

        def timed(tool: Tool) -> FunctionTool:
            return FunctionTool(
                tool.name, self.timed(part, tool), tool.scale, tool.macs_per_pixel, tool.receptive_radius
            )

        watched = Toolbox([timed(tool) for tool in toolbox])
        watched.device = toolbox.device
        return watched

    def reset(self) -> None:
        """Set every part's time to zero."""
        self.seconds = dict.fromkeys(self.seconds, 0.0)


def best_of(work: Mapping[Key, Callable[[], object]], rounds: int, seconds: float, clock: str) -> dict[Key, float]:
    """Seconds that each piece of work takes at its best; they take turns.

    Args:
        work: by its name or size.
        rounds: at most.
        seconds: a piece that alone has taken so long is not begun again.
        clock: a key of :data:`CLOCKS`.
    """
    watch = Stopwatch(clock)
    best, spent = dict.fromkeys(work, float("inf")), dict.fromkeys(work, 0.0)
    for number in range(rounds):
        for key, piece in work.items():
            if number and spent[key] >= seconds:
                continue
            began = watch.now()
            piece()
            took = watch.now() - began
            best[key], spent[key] = min(best[key], took), spent[key] + took
    return best
