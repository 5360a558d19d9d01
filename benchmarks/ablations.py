"""What each part of an agent contributes, one at a time: ``python -m benchmarks.ablations NAME --images DIR``.

``stop`` and ``steps`` run the agent as it is, without ``stop`` or with longer and shorter chains. ``tools`` and
``memory`` train agents from an oracle's demonstrations, all for the same time: with six of the twelve tools; without
the LSTM's memory; without the previous action. ``algorithms`` trains agents from random weights by RecurrentPPO and
DRQN, with the same time and seeds. Agents are trained on ``--train-images`` and measured on ``--images``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from agents.agent import RecurrentAgent, load_policy, policy_of
from agents.command_line import OneLineParser, positive_float, positive_int, run_guarded
from agents.encoders import ENCODERS
from agents.imitation.demonstrations import Demonstrations, demonstrate
from agents.imitation.imitation import imitate
from agents.policy_input import PolicyInput
from agents.rollout import draw_starts, play
from agents.training.agent import train_agent
from agents.training.algorithms import ALGORITHMS
from agents.training.settings import AgentTraining
from benchmarks.report.publishing import add_outputs, check_outputs, markdown_table, parse, publish
from restore_env import Task, Toolbox
from restore_env.policy import Policy
from tools_zoo import load_toolbox

PROGRAM = "benchmarks.ablations"
SEVERITIES = ("mild", "moderate", "severe")


@dataclass(frozen=True)
class Variant:
    """One line of an ablation's table."""

    name: str
    gains: Mapping[str, float]
    """By severity, dB."""
    steps: float
    """Mean length of the chains, ``stop`` included."""
    spread: float | None = None
    """Standard deviation of the mean gain over seeds, dB."""


class AblatedPolicy:
    """A policy without ``stop``, without the previous action in its observation, or without memory.

    Args:
        policy: chooses.
        stop: False: ``stop`` is masked.
        previous: False: the observation never has the previous action.
        memory: False: every step is the first one.
    """

    def __init__(self, policy: Policy, *, stop: bool = True, previous: bool = True, memory: bool = True) -> None:
        self._policy, self._stop, self._previous, self._memory = policy, stop, previous, memory

    def predict(
        self,
        observation: Any,
        state: Any | None = None,
        episode_start: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = True,
    ) -> tuple[npt.NDArray[np.int64], Any | None]:
        """Choose as the policy does without the part."""
        changed = dict(observation)
        if not self._stop:
            changed["action_mask"] = np.array(observation["action_mask"])
            changed["action_mask"][:, -1] = 0
        if not self._previous:
            changed["last_action"] = np.full_like(observation["last_action"], observation["action_mask"].shape[1])
        return self._policy.predict(changed, state if self._memory else None, episode_start, deterministic)


def measure(name: str, policy: Policy, task: Task, setting: argparse.Namespace) -> Variant:
    """Run a policy on the held-out patches of every severity."""
    gains, lengths = {}, []
    for severity in SEVERITIES:
        held_out = replace(task, images=setting.images, severity=severity)
        played = play(policy, held_out, draw_starts(held_out, setting.patches, setting.seed))
        gains[severity] = played.gain
        lengths += [len(actions) for actions in played.actions]
    return Variant(name, gains, float(np.mean(lengths)))


def load_agent(setting: argparse.Namespace) -> tuple[RecurrentAgent, Task]:
    """The agent as it is, and a task with its tools."""
    agent = load_policy(setting.policy)
    return agent, Task(toolbox=load_toolbox(setting.toolbox), dtype=PolicyInput.of(agent).observe)


def ablate_stop(setting: argparse.Namespace) -> list[Variant]:
    """The agent with and without its last action."""
    agent, task = load_agent(setting)
    return [
        measure("with stop", agent, task, setting),
        measure("without stop", AblatedPolicy(agent, stop=False), task, setting),
    ]


def ablate_steps(setting: argparse.Namespace) -> list[Variant]:
    """The agent with chains of 1 to 5 tools at most."""
    agent, task = load_agent(setting)
    return [measure(f"{steps} at most", agent, replace(task, max_steps=steps), setting) for steps in range(1, 6)]


def ablate_tools(setting: argparse.Namespace) -> list[Variant]:
    """All tools against every other strength of each kind."""
    toolbox = load_toolbox(setting.toolbox)
    variants = []
    for name, tools in (("12 tools", list(toolbox)), ("6 tools", [tool for tool in toolbox if tool.name[-1] in "24"])):
        print(f"training with {name}", file=sys.stderr, flush=True)
        task = Task(images=setting.train_images, toolbox=Toolbox(tools))
        demonstrations = demonstrate(task, setting.minutes * 60, setting.seed)
        variants.append(measure(name, train_imitator(Toolbox(tools), demonstrations, setting), task, setting))
    return variants


def ablate_memory(setting: argparse.Namespace) -> list[Variant]:
    """With and without the LSTM's memory and the previous action, from the same demonstrations."""
    toolbox = load_toolbox(setting.toolbox)
    task = Task(images=setting.train_images, toolbox=toolbox)
    demonstrations = demonstrate(task, setting.minutes * 60, setting.seed)
    variants = []
    for name, previous, memory in (
        ("LSTM and previous action", True, True),
        ("no previous action", False, True),
        ("no LSTM", True, False),
        ("neither", False, False),
    ):
        print(f"training with {name}", file=sys.stderr, flush=True)
        own = demonstrations
        if not previous:
            own = replace(own, last_actions=np.full_like(own.last_actions, own.masks.shape[-1]))
        agent = train_imitator(toolbox, own if memory else single_steps(own), setting)
        variants.append(measure(name, AblatedPolicy(agent, previous=previous, memory=memory), task, setting))
    return variants


def ablate_algorithms(setting: argparse.Namespace) -> list[Variant]:
    """RecurrentPPO against DRQN from random weights."""
    task = Task(images=setting.train_images, toolbox=load_toolbox(setting.toolbox))
    variants = []
    for name, algorithm in ALGORITHMS.items():
        runs = []
        for seed in range(setting.seeds):
            print(f"{name}, seed {seed}", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory() as folder:
                given = {each: getattr(setting, each) for each in ("minutes", "toolbox", "encoder")}
                images = setting.train_images
                agent, _ = train_agent(
                    AgentTraining(out=Path(folder), images=images, algorithm=name, seed=seed, **given)
                )
            runs.append(measure(algorithm.name, agent, task, setting))
        means = {severity: float(np.mean([run.gains[severity] for run in runs])) for severity in SEVERITIES}
        spread = float(np.std([np.mean(list(run.gains.values())) for run in runs]))
        variants.append(Variant(algorithm.name, means, float(np.mean([run.steps for run in runs])), spread))
    return variants


ABLATIONS: Mapping[str, Callable[[argparse.Namespace], list[Variant]]] = {
    "stop": ablate_stop,
    "steps": ablate_steps,
    "tools": ablate_tools,
    "memory": ablate_memory,
    "algorithms": ablate_algorithms,
}


def train_imitator(toolbox: Toolbox, demonstrations: Demonstrations, setting: argparse.Namespace) -> RecurrentAgent:
    """A new agent, trained by imitation."""
    torch.manual_seed(setting.seed)
    agent = RecurrentAgent(toolbox.names, encoder=setting.encoder)
    imitate(agent, demonstrations, setting.minutes * 60, setting.seed)
    return agent


def single_steps(demonstrations: Demonstrations) -> Demonstrations:
    """Every step as an episode of its own."""
    parts = {name: value.reshape(-1, 1, *value.shape[2:]) for name, value in vars(demonstrations).items()}
    return Demonstrations(**parts)


def as_table(variants: Sequence[Variant]) -> list[str]:
    """The variants as lines of Markdown."""
    spread = any(variant.spread is not None for variant in variants)
    lines = []
    for variant in variants:
        mean = f"{np.mean(list(variant.gains.values())):+.2f}" + (f" ± {variant.spread:.2f}" if spread else "")
        gains = [f"{variant.gains[severity]:+.2f}" for severity in SEVERITIES]
        lines.append([variant.name, *gains, mean, f"{variant.steps:.2f}"])
    return markdown_table(["gain, dB", *SEVERITIES, "mean", "steps"], lines)


def run(arguments: argparse.Namespace) -> int:
    """Run one ablation and publish its table."""
    check_outputs(arguments)
    variants = ABLATIONS[arguments.name](arguments)
    publish(arguments, "\n".join(as_table(variants)), {"variants": [asdict(variant) for variant in variants]})
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("name", choices=tuple(ABLATIONS))
    parser.add_argument("--images", type=Path, required=True, help="folder of held-out photographs")
    parser.add_argument("--train-images", type=Path, help="photographs to train on (default: the embedded ones)")
    parser.add_argument("--toolbox", default="default", help="shipped name or folder")
    parser.add_argument("--policy", help="shipped name or file (default: the toolbox's own)")
    parser.add_argument("--encoder", choices=tuple(ENCODERS), default="spectral", help="of agents that are trained")
    parser.add_argument("--patches", type=positive_int, default=500, help="per severity (default 500)")
    parser.add_argument("--minutes", type=positive_float, default=5.0, help="of each training (default 5)")
    parser.add_argument("--seeds", type=positive_int, default=3, help="runs of each algorithm (default 3)")
    parser.add_argument("--seed", type=int, default=0)
    add_outputs(parser)
    parsed = parse(parser, arguments)
    parsed.policy = parsed.policy or str(policy_of(parsed.toolbox))
    return run_guarded(lambda: run(parsed), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
