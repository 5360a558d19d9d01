"""Steps per second of the environments and of the tools alone: ``python -m benchmarks.speed``.

All environments run a uniformly random policy on the same photographs with the same toolbox. Resets are included; a
step that only resets a slot is not counted. "Bare tools" runs the tools on as many patches and does nothing else.
With ``--restore`` it times the command line instead (:mod:`benchmarks.restoring`).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from agents.command_line import OneLineParser, positive_float, positive_int, run_guarded
from benchmarks import restoring
from benchmarks.report.machine import environment
from benchmarks.report.publishing import add_outputs, check_outputs, markdown_table, parse, publish
from restore_env import ImageRestoreEnv, ImageRestoreVectorEnv, Toolbox
from restore_env.levels.store import open_levels
from restore_env.task import DRAWS
from tools_zoo import load_toolbox
from tools_zoo.backends.network_tool import check_runs_on

PROGRAM = "benchmarks.speed"
ROUNDS = 8
BARE = "bare tools"
NATIVE = "ImageRestoreVectorEnv"


@dataclass(frozen=True)
class Throughput:
    """One line of the table."""

    environment: str
    envs: int
    steps_per_second: float
    """Environment steps in which an action was carried out, per second."""


def measure(stepped: Mapping[str, Callable[[], int]], envs: int, seconds: float) -> list[Throughput]:
    """Measure in ``ROUNDS`` turns, so that a disturbance of the machine affects all alike.

    A function of ``stepped`` steps all its environments once and returns the number of steps.
    """
    steps, elapsed = dict.fromkeys(stepped, 0), dict.fromkeys(stepped, 0.0)
    for step in stepped.values():
        step()  # warm up
    for _ in range(ROUNDS):
        for name, step in stepped.items():
            began = time.perf_counter()
            while time.perf_counter() - began < seconds / ROUNDS:
                steps[name] += step()
            elapsed[name] += time.perf_counter() - began
    return [Throughput(name, envs, steps[name] / elapsed[name]) for name in stepped]


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


def vector_environments(envs: int, every_kind: bool, **task: Any) -> dict[str, Any]:
    """The native vector environment and, if wanted, Gymnasium's and Stable-Baselines3's, over the same task."""
    made: dict[str, Any] = {NATIVE: ImageRestoreVectorEnv(envs, autoreset_mode=AutoresetMode.SAME_STEP, **task)}
    if every_kind:
        from stable_baselines3.common.vec_env import DummyVecEnv

        single: list[Callable[[], Any]] = [lambda: ImageRestoreEnv(**task)] * envs
        made["SyncVectorEnv"] = SyncVectorEnv(single, autoreset_mode=AutoresetMode.SAME_STEP)
        made["SB3 DummyVecEnv"] = DummyVecEnv(single)
    return made


def level_environments(envs: int, levels: Path, depth: int, pixels: bool) -> dict[str, Any]:
    """Vector environments that play a level set to its depth: with the compact observation, and with patches."""
    kinds: dict[str, dict[str, Any]] = {"level set, spectrum": {"observation": "spectrum", "flatten": True}}
    if pixels:
        kinds["level set, patches"] = {"observation": "image"}
    shared: dict[str, Any] = {"levels": levels, "max_steps": depth, "autoreset_mode": AutoresetMode.SAME_STEP}
    return {name: ImageRestoreVectorEnv(envs, **shared, **kind) for name, kind in kinds.items()}


def ppo_steps_per_second(envs: int, levels: Path, depth: int, seconds: float) -> float:
    """Steps per second of Stable-Baselines3's PPO with ``MlpPolicy``, learning included."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import VecMonitor

    from agents.sb3_env import RestoreVecEnv

    env = RestoreVecEnv(envs, levels=levels, max_steps=depth, observation="spectrum", flatten=True)
    rollout = 32
    model = PPO("MlpPolicy", VecMonitor(env), n_steps=rollout, batch_size=2048, n_epochs=4, device="cpu")
    model.learn(rollout * envs)
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        model.learn(rollout * envs)
        steps += rollout * envs
    return steps / (time.perf_counter() - began)


def table(rows: Sequence[Throughput], bare: dict[int, float]) -> str:
    """The rows as a Markdown table; each against the bare forwards of as many environments."""
    heads = ["environment", "envs", "steps/s", "of bare tools"]
    lines = []
    for row in rows:
        share = row.steps_per_second / bare[row.envs]
        cells = [f"{row.steps_per_second:,.0f}", f"{share:.0%}"]
        lines.append([row.environment, row.envs, *cells])
    return "\n".join(markdown_table(heads, lines))


def run(arguments: argparse.Namespace) -> int:
    """Measure everything and print the table."""
    check_outputs(arguments)
    check_runs_on(arguments.backend, arguments.device)
    toolbox = load_toolbox(arguments.toolbox, arguments.device, backend=arguments.backend)
    task = {"toolbox": toolbox, **{name: getattr(arguments, name) for name in ("images", "device", "draws")}}
    widest = 64 if 64 in arguments.envs else arguments.envs[-1]
    rows: list[Throughput] = []
    for envs in arguments.envs:
        environments = vector_environments(envs, envs == widest, **task)
        stepped = {BARE: bare_forwards(envs, toolbox, patch_size=63)}
        stepped |= {name: random_play(env, envs, toolbox.stop + 1) for name, env in environments.items()}
        rows += measure(stepped, envs, arguments.seconds)
        for env in environments.values():
            env.close()
    if arguments.levels is not None:
        manifest = open_levels(arguments.levels).manifest
        for envs in arguments.envs:
            played = level_environments(envs, arguments.levels, manifest.depth, manifest.pixels)
            stepped = {name: random_play(env, envs, len(manifest.tools) + 1) for name, env in played.items()}
            rows += measure(stepped, envs, arguments.seconds)
            ppo = ppo_steps_per_second(envs, arguments.levels, manifest.depth, arguments.seconds)
            rows.append(Throughput("level set, PPO", envs, ppo))
    bare = {row.envs: row.steps_per_second for row in rows if row.environment == BARE}
    facts = environment(arguments.device)
    machine = (
        f"{facts['device']}, {torch.get_num_threads()} threads,"
        f" PyTorch {torch.__version__}, tools run by {arguments.backend}, patches distorted on the {arguments.draws}"
    )
    record = {"rows": [asdict(row) for row in rows], "environment": facts}
    publish(arguments, f"{table(rows, bare)}\n\n{machine}", record)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--images", type=Path, help="folder of photographs (default: the embedded ones)")
    parser.add_argument("--levels", type=Path, help="a level set whose throughput is measured, too")
    parser.add_argument("--toolbox", default="default", help="shipped name or folder")
    parser.add_argument("--envs", type=positive_int, nargs="+", default=[8, 64, 256])
    parser.add_argument("--seconds", type=positive_float, default=10.0, help="per measurement (default 10)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--backend", default="torch", help="what runs the tools on a CPU: torch (default), eager, ncnn")
    parser.add_argument("--draws", choices=DRAWS, default=DRAWS[0], help="where patches are distorted (default host)")
    restoring.add_options(parser.add_argument_group("the command line"))
    add_outputs(parser)
    parsed = parse(parser, arguments)
    return run_guarded(lambda: restoring.run(parsed) if parsed.restore else run(parsed), parser.prog)


if __name__ == "__main__":
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    sys.exit(main())
