"""Where the time of RecurrentPPO goes, per environment step: ``python -m benchmarks.learning_speed``.

An iteration is what ``imagerestore train agent`` repeats: a rollout of every environment, then the policy's update.
Contenders take turns, one iteration each; the first round is not counted, and each contender's round of median time is
reported. sb3-contrib's policy gives the same losses and gradients, up to rounding.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from sb3_contrib.common.recurrent.policies import RecurrentMultiInputActorCriticPolicy
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecMonitor
from torch import Tensor

from agents.cli import OneLineParser, run_guarded
from agents.commands.arguments import positive_int
from agents.encoders import ENCODERS
from agents.ppo.policies import MaskedRecurrentPolicy, RestoreFeatures, TensorObservation
from agents.sb3_env import RestoreVecEnv
from agents.training.agent import in_half_precision
from agents.training.algorithms import PPOSettings
from benchmarks.machine import environment
from benchmarks.publishing import add_outputs, check_outputs, parse, publish
from benchmarks.stopwatch import CLOCKS, Stopwatch
from restore_env.compute.memory import retained_memory
from tools_zoo import load_toolbox
from tools_zoo.backends.network_tool import BACKENDS, DEFAULT_BACKEND

PROGRAM, SECTION = "benchmarks.learning_speed", "learning"


class FeaturesOfAll(RestoreFeatures):
    """Looks at padding, too, with images in memory channel after channel."""

    def __init__(self, *spaces: Any, **arguments: Any) -> None:
        super().__init__(*spaces, **arguments)
        self.patch.features.layout = torch.contiguous_format

    def forward(self, observations: TensorObservation) -> Tensor:
        """Map a batch of observations to ``(N, width)`` and remember its mask."""
        self.mask = observations["action_mask"]
        return self._look(observations["image"], observations["last_action"].flatten(1).argmax(dim=1))


class StepwisePolicy(MaskedRecurrentPolicy):
    """The policy as sb3-contrib has it: it looks at padding, takes sequences step by step, images as they come."""

    _process_sequence = staticmethod(RecurrentMultiInputActorCriticPolicy._process_sequence)

    def __init__(self, *spaces: Any, **arguments: Any) -> None:
        super().__init__(*spaces, **{**arguments, "features_extractor_class": FeaturesOfAll})


@dataclass(frozen=True)
class StepwisePPO(PPOSettings):
    """RecurrentPPO with sb3-contrib's policy."""

    policy = StepwisePolicy


@dataclass(frozen=True)
class Contender:
    """A way to run RecurrentPPO."""

    title: str
    settings: type[PPOSettings]
    keeps_memory: bool
    half_tools: bool = False
    half_looks: bool = False
    backend: str = DEFAULT_BACKEND

    def can_run(self, device: str) -> bool:
        """Whether its backend is installed and made for the device."""
        backend = BACKENDS[self.backend]
        return backend.missing is None and backend.runs_on(device)


CONTENDERS = (
    Contender("sb3-contrib's policy", StepwisePPO, keeps_memory=False),
    Contender("sb3-contrib's policy, memory kept", StepwisePPO, keeps_memory=True),
    Contender("this policy, memory kept: the default", PPOSettings, keeps_memory=True),
    Contender("sb3-contrib's policy, tools in bf16", StepwisePPO, keeps_memory=False, half_tools=True),
    Contender("`--backend ncnn`", PPOSettings, keeps_memory=True, backend="ncnn"),
    Contender("`--precision bf16`", PPOSettings, keeps_memory=True, half_tools=True, half_looks=True),
)
TOOLS, STEPPING, PLAYING, UPDATE, ALL = "tools", "stepping", "policy in rollouts", "update", "iteration"
ENVIRONMENT, OTHER = "environment besides tools", "everything else"
PARTS = (TOOLS, ENVIRONMENT, PLAYING, UPDATE, OTHER)
"""Of an iteration's time; the first two together are the environment's steps."""


@dataclass(frozen=True)
class Row:
    """What a contender takes."""

    title: str
    milliseconds: float
    """Per environment step."""
    parts: dict[str, float]
    """Milliseconds of each of :data:`PARTS`; they add up to the whole."""


class Learner:
    """A contender that learns, one iteration at a time."""

    def __init__(self, contender: Contender, arguments: argparse.Namespace) -> None:
        self.contender, self._watch = contender, Stopwatch(arguments.clock)
        toolbox = load_toolbox(arguments.toolbox, arguments.device, contender.backend)
        if contender.half_tools:
            toolbox = in_half_precision(toolbox)
        toolbox = self._watch.timed_toolbox(TOOLS, toolbox)
        env = VecMonitor(RestoreVecEnv(arguments.envs, images=arguments.images, toolbox=toolbox, upscale=(1,)))
        batch = arguments.envs * arguments.steps
        settings = contender.settings.defaults(n_envs=arguments.envs, n_steps=arguments.steps)
        if settings.batch_size > batch:
            settings = contender.settings.defaults(n_envs=arguments.envs, n_steps=arguments.steps, batch_size=batch)
        self.model: BaseAlgorithm = settings.build(
            env, lambda: 0.0, 0, toolbox.device, arguments.encoder, contender.half_looks
        )
        self.model.set_logger(Logger(None, []))
        self._steps = batch
        self._watch.watch(self.model.env, "step", STEPPING)
        for method in ("forward", "predict_values"):
            self._watch.watch(self.model.policy, method, PLAYING)
        self._watch.watch(self.model, "train", UPDATE)
        self._iterate = self._watch.timed(ALL, self.model.learn)
        self.rounds: list[Row] = []

    def iterate(self) -> None:
        """Run a rollout and an update and note the time."""
        self._watch.reset()
        with retained_memory() if self.contender.keeps_memory else nullcontext():
            self._iterate(self._steps, log_interval=10**9, reset_num_timesteps=False)
        took = {part: seconds / self._steps * 1e3 for part, seconds in self._watch.seconds.items()}
        parts = {
            TOOLS: took[TOOLS],
            ENVIRONMENT: took[STEPPING] - took[TOOLS],
            PLAYING: took[PLAYING],
            UPDATE: took[UPDATE],
            OTHER: took[ALL] - took[STEPPING] - took[PLAYING] - took[UPDATE],
        }
        self.rounds.append(Row(self.contender.title, took[ALL], parts))

    @property
    def median(self) -> Row:
        """The round of median time, the first one left out."""
        counted = sorted(self.rounds[1:], key=lambda row: row.milliseconds)
        return counted[len(counted) // 2]


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown: milliseconds per environment step, and shares."""
    lines = [
        f"| RecurrentPPO | ms a step | {' | '.join(PARTS)} | times as fast |",
        f"|---|---:|{'---:|' * len(PARTS)}---:|",
    ]
    for row in rows:
        cells = [f"{row.parts[part]:.2f} ({row.parts[part] / row.milliseconds:.0%})" for part in PARTS]
        times = rows[0].milliseconds / row.milliseconds
        lines.append(f"| {row.title} | {row.milliseconds:.2f} | {' | '.join(cells)} | {times:.2f} |")
    return "\n".join(lines)


def run(arguments: argparse.Namespace) -> int:
    """Let the contenders take turns; print and write."""
    check_outputs(arguments, SECTION)
    learners = [Learner(contender, arguments) for contender in CONTENDERS if contender.can_run(arguments.device)]
    for contender in CONTENDERS:
        if not contender.can_run(arguments.device):
            print(f"{contender.title}: left out, cannot run here", file=sys.stderr)
    for number in range(arguments.rounds + 1):
        for learner in learners:
            learner.iterate()
            last = learner.rounds[-1]
            print(f"[{number}/{arguments.rounds}] {last.title}: {last.milliseconds:.2f} ms a step", file=sys.stderr)
    for learner in learners:
        assert learner.model.env is not None
        learner.model.env.close()
    rows, facts = [learner.median for learner in learners], environment(arguments.device)
    told = (
        f"Milliseconds ({arguments.clock} time) per environment step, and shares; {arguments.envs} environments,"
        f" {arguments.steps} steps each between updates; toolbox {arguments.toolbox}; {facts['threads']} thread(s),"
        f" {facts['processor'] if arguments.device == 'cpu' else facts['device']}."
    )
    settings = {name: getattr(arguments, name) for name in ("clock", "envs", "steps", "rounds", "toolbox", "encoder")}
    record = {"environment": facts, **settings, "rows": [asdict(row) for row in rows]}
    publish(arguments, SECTION, f"{told}\n\n{table(rows)}", record)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    usual = PPOSettings.defaults()
    parser = OneLineParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--images", type=Path, help="folder of photographs (default: the embedded ones)")
    parser.add_argument("--toolbox", default="default", help="shipped name or folder")
    parser.add_argument(
        "--encoder", choices=tuple(ENCODERS), default="published", help="how the agent looks at a patch"
    )
    parser.add_argument("--envs", type=positive_int, default=usual.n_envs, help="environments side by side")
    parser.add_argument("--steps", type=positive_int, default=usual.n_steps, help="of each environment in a rollout")
    parser.add_argument("--rounds", type=positive_int, default=5, help="iterations of each contender (default 5)")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall", help="wall (default), or the processor's")
    parser.add_argument("--device", default="cpu")
    add_outputs(parser)
    parsed = parse(parser, arguments)
    return run_guarded(lambda: run(parsed), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
