"""Steps per second of everything that runs tools: ``python -m benchmarks.speed``.

All contenders play a uniformly random policy on the same photographs with the same toolbox. Resets are included: a step
that only resets a slot is not counted. Bare forwards run the tools on as many patches, drawn by the same policy, and do
nothing else. The share of time in tools is measured inside each contender. A second table says where a step of the
native vector environment goes: tools, observation, reset, the rest; clocks are put around its parts from outside.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from agents.command_line import OneLineParser, positive_float, positive_int, run_guarded
from agents.commands.arguments import add_backend
from benchmarks.report.machine import environment
from benchmarks.report.publishing import add_outputs, check_outputs, parse, publish
from restore_env import ImageRestoreEnv, ImageRestoreVectorEnv, Toolbox
from restore_env.task import DRAWS
from restore_env.toolbox import Tool
from tools_zoo import load_toolbox
from tools_zoo.backends.network_tool import check_runs_on

PROGRAM, SECTION = "benchmarks.speed", "throughput"
ROUNDS = 8
BARE = "bare tool forwards"
NATIVE = "native vector env"


Span = tuple[float, float]
"""When something began and ended."""


class TimedTool:
    """A tool that notes when it runs.

    Args:
        tool: what runs.
        spans: where it is noted, together with other tools' times.
    """

    def __init__(self, tool: Tool, spans: list[Span]) -> None:
        self._tool, self._spans = tool, spans
        self.name, self.scale = tool.name, tool.scale
        self.macs_per_pixel, self.receptive_radius = tool.macs_per_pixel, tool.receptive_radius
        self.thread_safe = getattr(tool, "thread_safe", False)

    def __call__(self, images: torch.Tensor, /) -> torch.Tensor:
        """Run the tool and take the time."""
        began = time.perf_counter()
        outputs = self._tool(images)
        if outputs.is_cuda:
            torch.cuda.synchronize()
        self._spans.append((began, time.perf_counter()))
        return outputs


def covered(spans: Sequence[Span]) -> float:
    """How long at least one of them lasted, where they may overlap."""
    total, until = 0.0, float("-inf")
    for began, ended in sorted(spans):
        total += max(0.0, ended - max(began, until))
        until = max(until, ended)
    return total


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    contender: str
    envs: int
    steps_per_second: float
    """Environment steps in which an action was carried out, per second."""
    share_in_tools: float
    """Of the wall time: at least one tool runs."""


@dataclass(frozen=True)
class Split:
    """Where the time of a step of the native vector environment goes, all in ms a step."""

    envs: int
    tools: float
    observation: float
    """Clipping, rounding and handing over the images, and what is observed beside them, while no tool runs."""
    reset: float
    """Waiting for starts, making them ready and putting them into their slots, while no tool runs."""
    rest: float
    """Rewards, the images' copies to and from the tools, infos, while no tool runs."""
    drawing: float
    """Drawing starts on whichever thread, processor time: most of it passes while the tools run."""


class Clock:
    """Adds up the time that calls take, on every thread."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self.spans: list[Span] = []  # appending is safe in several threads

    def around(self, owner: Any, *names: str) -> None:
        """From now on take the time of these methods of one object."""
        for name in names:
            setattr(owner, name, self._timed(getattr(owner, name)))

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def timed(*arguments: Any, **named: Any) -> Any:
            began = self._now()
            try:
                return method(*arguments, **named)
            finally:
                self.spans.append((began, self._now()))

        return timed

    @property
    def seconds(self) -> float:
        """All of it so far."""
        return sum(ended - began for began, ended in self.spans)


class SplitPlay:
    """Plays a native vector environment and tells where its time went."""

    def __init__(self, env: ImageRestoreVectorEnv, step: Callable[[], int], tools: list[Span]) -> None:
        self._env, self._step, self._tools = env, step, tools
        self._steps, self._in_tools, self._in_observing, self._in_resetting = 0, 0.0, 0.0, 0.0
        self._whole, self._observing, self._resetting, self._drawing = (
            Clock(),
            Clock(),
            Clock(),
            Clock(time.thread_time),
        )
        self._whole.around(env, "step")
        self._observing.around(env.episodes, "observe", "_look")
        self._resetting.around(env, "_draw", "_ready", "_begin")
        self._drawing.around(env.sampler, "draw", "_draw_together")

    def __call__(self) -> int:
        """Step once; return how many environment steps that were."""
        before = len(self._tools)
        self._observing.spans.clear()
        self._resetting.spans.clear()
        taken = self._step()
        tools = self._tools[before:]
        resetting = [*tools, *self._resetting.spans]
        self._in_tools += covered(tools)
        self._in_resetting += covered(resetting) - covered(tools)
        self._in_observing += covered([*resetting, *self._observing.spans]) - covered(resetting)
        self._steps += 1
        return taken

    def split(self) -> Split:
        """What it came to, a step."""
        parts = [self._in_tools, self._in_observing, self._in_resetting]
        rest = self._whole.seconds - sum(parts)
        tools, observing, resetting, rest, drawing = (
            1e3 * seconds / self._steps for seconds in (*parts, rest, self._drawing.seconds)
        )
        return Split(self._env.num_envs, tools, observing, resetting, rest, drawing)


def timed_toolbox(name: str, device: str, backend: str) -> tuple[Toolbox, list[Span]]:
    """The toolbox, and the times at which its tools ran."""
    loaded = load_toolbox(name, device, backend=backend)
    spans: list[Span] = []
    toolbox = Toolbox([TimedTool(tool, spans) for tool in loaded])
    toolbox.device = loaded.device
    return toolbox, spans


def measure(contenders: dict[str, Callable[[], int]], envs: int, tools: list[Span], seconds: float) -> list[Row]:
    """Let the contenders take turns, ``ROUNDS`` times, so that a disturbed machine is unfair to none.

    A contender's function steps all its environments once and returns how many steps that were.
    """
    steps, elapsed, in_tools = (dict.fromkeys(contenders, 0.0) for _ in range(3))
    for step in contenders.values():
        step()  # warm up
    for _ in range(ROUNDS):
        for name, step in contenders.items():
            tools.clear()
            began = time.perf_counter()
            while time.perf_counter() - began < seconds / ROUNDS:
                steps[name] += step()
            elapsed[name] += time.perf_counter() - began
            in_tools[name] += covered(tools)
    return [Row(name, envs, steps[name] / elapsed[name], in_tools[name] / elapsed[name]) for name in contenders]


def bare_forwards(envs: int, toolbox: Toolbox, patch_size: int) -> Callable[[], int]:
    """The tools alone, on groups of the sizes that ``envs`` environments with a random policy give."""
    rng = np.random.default_rng(0)
    images = torch.rand(envs, 3, patch_size, patch_size, device=toolbox.device)

    def step() -> int:
        actions = rng.integers(0, toolbox.stop + 1, envs)
        for action in np.unique(actions[actions != toolbox.stop]):
            with torch.inference_mode():
                toolbox[action](images[: int((actions == action).sum())])
        return envs

    return step


def random_play(env: Any, envs: int, actions: int) -> Callable[[], int]:
    """A random policy in any vector environment that starts finished episodes anew in the same step."""
    rng = np.random.default_rng(0)
    env.reset()

    def step() -> int:
        env.step(rng.integers(0, actions, envs))
        return envs

    return step


def vector_environments(envs: int, toolbox: Toolbox, every_kind: bool, **task: Any) -> dict[str, Any]:
    """The native vector environment and, if wanted, its rivals, over the same task."""
    task["toolbox"] = toolbox
    made: dict[str, Any] = {NATIVE: ImageRestoreVectorEnv(envs, autoreset_mode=AutoresetMode.SAME_STEP, **task)}
    if every_kind:
        from stable_baselines3.common.vec_env import DummyVecEnv

        single: list[Callable[[], Any]] = [lambda: ImageRestoreEnv(**task)] * envs
        made["SyncVectorEnv"] = SyncVectorEnv(single, autoreset_mode=AutoresetMode.SAME_STEP)
        made["SB3 DummyVecEnv"] = DummyVecEnv(single)
    return made


def peak_memory_mib() -> float | None:
    """The largest resident size of this process so far, MiB; None where the system does not tell."""
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def table(rows: Sequence[Row], bare: dict[int, float]) -> str:
    """The rows as a Markdown table; each against the bare forwards of as many environments."""
    lines = ["| contender | envs | steps/s | of bare forwards | time in tools |", "|---|---:|---:|---:|---:|"]
    lines += [
        f"| {row.contender} | {row.envs} | {row.steps_per_second:.0f} |"
        f" {row.steps_per_second / bare[row.envs]:.0%} | {row.share_in_tools:.0%} |"
        for row in rows
    ]
    return "\n".join(lines)


def split_table(splits: Sequence[Split]) -> str:
    """The splits as a Markdown table: ms a step, and of the whole."""
    parts = ("tools", "observation", "reset", "rest")
    lines = [
        f"| envs | {' | '.join(f'{part}, ms a step' for part in parts)} | drawing on threads, CPU ms |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for split in splits:
        values = [getattr(split, part) for part in parts]
        cells = [f"{value:.1f} ({value / sum(values):.1%})" for value in values]
        lines.append(f"| {split.envs} | {' | '.join(cells)} | {split.drawing:.1f} |")
    return "\n".join(lines)


def run(arguments: argparse.Namespace) -> int:
    """Measure everything and print the table."""
    check_outputs(arguments, arguments.section)
    check_runs_on(arguments.backend, arguments.device)
    toolbox, tools = timed_toolbox(arguments.toolbox, arguments.device, arguments.backend)
    task: dict[str, Any] = {"images": arguments.images, "device": arguments.device, "draws": arguments.draws}
    widest = 64 if 64 in arguments.envs else arguments.envs[-1]
    rows: list[Row] = []
    splits: list[Split] = []
    for envs in arguments.envs:
        environments = vector_environments(envs, toolbox, envs == widest, **task)
        contenders = {BARE: bare_forwards(envs, toolbox, patch_size=63)}
        contenders |= {name: random_play(env, envs, toolbox.stop + 1) for name, env in environments.items()}
        native = contenders[NATIVE] = SplitPlay(environments[NATIVE], contenders[NATIVE], tools)
        rows += measure(contenders, envs, tools, arguments.seconds)
        splits.append(native.split())
        for env in environments.values():
            env.close()
    bare = {row.envs: row.steps_per_second for row in rows if row.contender == BARE}
    facts = environment(arguments.device)
    peak = peak_memory_mib()
    memory = "" if peak is None else f" peak memory {peak:.0f} MiB,"
    machine = (
        f"{facts['device']}, {torch.get_num_threads()} threads,{memory}"
        f" PyTorch {torch.__version__}, tools run by {arguments.backend}, patches distorted on the {arguments.draws}"
    )
    record = {
        "rows": [asdict(row) for row in rows],
        "splits": [asdict(split) for split in splits],
        "threads": torch.get_num_threads(),
        "peak": peak,
        "environment": facts,
    }
    publish(arguments, arguments.section, f"{table(rows, bare)}\n\n{split_table(splits)}\n\n{machine}", record)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--images", type=Path, help="folder of photographs (default: the embedded ones)")
    parser.add_argument("--toolbox", default="default", help="shipped name or folder")
    parser.add_argument("--envs", type=positive_int, nargs="+", default=[8, 64, 256])
    parser.add_argument("--seconds", type=positive_float, default=10.0, help="per measurement (default 10)")
    parser.add_argument("--device", default="cpu")
    add_backend(parser)
    parser.add_argument("--draws", choices=DRAWS, default=DRAWS[0], help="where patches are distorted (default host)")
    add_outputs(parser)
    parser.add_argument("--section", default=SECTION, help=f"of the card (default: {SECTION})")
    parsed = parse(parser, arguments)
    return run_guarded(lambda: run(parsed), parser.prog)


if __name__ == "__main__":
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    sys.exit(main())
