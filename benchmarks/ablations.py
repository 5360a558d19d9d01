"""What each part of an agent contributes, one at a time: ``python -m benchmarks.ablations NAME --images DIR``.

``stop`` and ``steps`` run the agent as it is, without ``stop`` or with longer and shorter chains. ``joint`` runs two
toolboxes, one of them from before joint training, each with its agent. ``tools`` and ``memory`` train agents by
imitation on levels of the task, all for the same time: with six of the twelve tools; without the LSTM's memory;
without the previous action. ``algorithms`` trains agents from random weights by RecurrentPPO and DRQN, with the same
time and seeds. Agents are trained on ``--train-images`` and measured on ``--images``.

Beside each variant is what choosing among its tools is worth: the best constant chain, found on ``--train-images``, and
the best chain of each patch, both of at most two tools.
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
import torch
from torch import Tensor

from agents.agent import RecurrentAgent, load_policy, policy_of
from agents.command_line import OneLineParser, positive_float, positive_int, run_guarded
from agents.encoders import ENCODERS
from agents.imitation.imitation import ImitationTraining, train_imitation
from agents.imitation.warm_start import BUILDING_SHARE, collect_levels
from agents.policy_input import PolicyInput
from agents.rollout import play
from agents.training.agent import train_agent
from agents.training.algorithms import ALGORITHMS
from agents.training.settings import AgentTraining
from benchmarks.attribution.choice import Explorer, PatchSets
from benchmarks.attribution.policies import AblatedPolicy
from benchmarks.report.publishing import add_outputs, check_outputs, markdown_table, parse, publish
from restore_env import Task, Toolbox
from restore_env.distortions.protocol import MIXED, check_severity
from restore_env.policy import Policy
from restore_env.resolve import task_toolbox
from tools_zoo import load_toolbox

PROGRAM = "benchmarks.ablations"


@dataclass(frozen=True)
class Variant:
    """One line of an ablation's table."""

    name: str
    gains: Mapping[str, float]
    """By severity, dB."""
    constant: Mapping[str, float]
    """Of the best constant chain."""
    best: Mapping[str, float]
    """Of the best chain of each patch."""
    steps: float
    """Mean length of the chains, ``stop`` included."""
    spread: float | None = None
    """Standard deviation of the mean gain over seeds, dB."""

    @property
    def means(self) -> tuple[float, float, float]:
        """Gain, the constant chain's and the best chain's, means over the severities."""
        gain, constant, best = (float(np.mean([*values.values()])) for values in (self.gains, self.constant, self.best))
        return gain, constant, best


def measure(name: str, policy: Policy, task: Task, setting: argparse.Namespace, toolbox: str | None = None) -> Variant:
    """Run a policy on the held-out patches of every severity.

    Args:
        name: of the variant.
        policy: chooses.
        task: with its tools, which may be a part of the toolbox, and limits.
        setting: of the command line.
        toolbox: shipped name or folder; None: that of the command line.
    """
    gains, constants, bests, lengths = {}, {}, {}, []
    kept = task_toolbox(task).names
    for severity in setting.severity:
        sets: PatchSets = setting.explorer.sets(toolbox or setting.toolbox, severity=severity)
        removed = [tool for tool, each in enumerate(sets.measured.toolbox.names) if each not in kept]
        choice, played = sets.choice(removed), play(policy, task, sets.measured.starts)
        gains[severity] = played.gain
        constants[severity], bests[severity] = (
            float(returns.mean()) for returns in (choice.constant_returns, choice.best_returns)
        )
        lengths += [len(actions) for actions in played.actions]
    return Variant(name, gains, constants, bests, float(np.mean(lengths)))


def load_agent(policy: str | Path, toolbox: str) -> tuple[RecurrentAgent, Task]:
    """An agent as it is, and a task with its tools."""
    tools = load_toolbox(toolbox)
    agent = load_policy(policy, tools=tools.names)
    return agent, Task(toolbox=tools, dtype=PolicyInput.of(agent).observe)


def training_task(toolbox: Toolbox, setting: argparse.Namespace) -> Task:
    """The task that agents are trained on."""
    return Task(images=setting.train_images, severity=setting.train_severity, toolbox=toolbox)


def ablate_stop(setting: argparse.Namespace) -> list[Variant]:
    """The agent with and without its last action."""
    agent, task = load_agent(setting.policy, setting.toolbox)
    return [
        measure("with stop", agent, task, setting),
        measure("without stop", AblatedPolicy(agent, stop=False), task, setting),
    ]


def ablate_steps(setting: argparse.Namespace) -> list[Variant]:
    """The agent with chains of 1 to 5 tools at most."""
    agent, task = load_agent(setting.policy, setting.toolbox)
    return [measure(f"{steps} at most", agent, replace(task, max_steps=steps), setting) for steps in range(1, 6)]


def ablate_joint(setting: argparse.Namespace) -> list[Variant]:
    """Tools from before joint training and after it, each with their own agent."""
    variants = []
    for name, toolbox, policy in (
        ("before", setting.before, policy_of(setting.before)),
        ("after", setting.toolbox, setting.policy),
    ):
        agent, task = load_agent(policy, toolbox)
        variants.append(measure(f"{name}, {Path(toolbox).name}", agent, task, setting, toolbox))
    return variants


def ablate_tools(setting: argparse.Namespace) -> list[Variant]:
    """All tools against every other strength of each kind."""
    toolbox = load_toolbox(setting.toolbox)
    variants = []
    for name, tools in (("12 tools", list(toolbox)), ("6 tools", [tool for tool in toolbox if tool.name[-1] in "24"])):
        print(f"training with {name}", file=sys.stderr, flush=True)
        task = training_task(Toolbox(tools), setting)
        agent = RecurrentAgent(task_toolbox(task).names, "q", encoder=setting.encoder)
        with tempfile.TemporaryDirectory() as folder:
            imitate(agent, collect(task, Path(folder), setting), Path(folder), setting)
        variants.append(measure(name, agent, task, setting))
    return variants


def ablate_memory(setting: argparse.Namespace) -> list[Variant]:
    """With and without the LSTM's memory and the previous action, from the same levels."""
    toolbox = load_toolbox(setting.toolbox)
    task, variants = training_task(toolbox, setting), []
    with tempfile.TemporaryDirectory() as folder:
        sets = collect(task, Path(folder), setting)
        for number, (name, previous, memory) in enumerate(
            (
                ("LSTM and previous action", True, True),
                ("no previous action", False, True),
                ("no LSTM", True, False),
                ("neither", False, False),
            )
        ):
            print(f"training with {name}", file=sys.stderr, flush=True)
            torch.manual_seed(setting.seed)
            agent = AblatedAgent(toolbox.names, "q", encoder=setting.encoder)
            agent.previous, agent.memory = previous, memory
            imitate(agent, sets, Path(folder) / str(number), setting)
            variants.append(measure(name, agent, task, setting))
    return variants


def ablate_algorithms(setting: argparse.Namespace) -> list[Variant]:
    """RecurrentPPO against DRQN from random weights."""
    task = training_task(load_toolbox(setting.toolbox), setting)
    variants = []
    for name, algorithm in ALGORITHMS.items():
        runs = []
        for seed in range(setting.seeds):
            print(f"{name}, seed {seed}", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory() as folder:
                given = {each: getattr(setting, each) for each in ("minutes", "toolbox", "encoder")}
                given |= {"images": setting.train_images, "severity": setting.train_severity}
                agent, _ = train_agent(AgentTraining(out=Path(folder), algorithm=name, seed=seed, **given))
            runs.append(measure(algorithm.name, agent, task, setting))
        means = {severity: float(np.mean([run.gains[severity] for run in runs])) for severity in setting.severity}
        steps, spread = float(np.mean([run.steps for run in runs])), float(np.std([run.means[0] for run in runs]))
        variants.append(replace(runs[0], gains=means, steps=steps, spread=spread))
    return variants


ABLATIONS: Mapping[str, Callable[[argparse.Namespace], list[Variant]]] = {
    "stop": ablate_stop,
    "steps": ablate_steps,
    "joint": ablate_joint,
    "tools": ablate_tools,
    "memory": ablate_memory,
    "algorithms": ablate_algorithms,
}


class AblatedAgent(RecurrentAgent):
    """An agent without memory, or that does not know the previous action, in training and afterwards."""

    memory, previous = True, True

    def step(self, encoded: Tensor, last_action: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Any]:
        """One step of the network, without the part."""
        if not self.previous:
            last_action = torch.full_like(last_action, len(self.tools) + 1)
        if not self.memory:
            state = (torch.zeros_like(state[0]), torch.zeros_like(state[1]))
        return super().step(encoded, last_action, state)


def collect(task: Task, folder: Path, setting: argparse.Namespace) -> list[str]:
    """Build levels to train on, for most of the time of a training."""
    seconds = BUILDING_SHARE * setting.minutes * 60
    return collect_levels(task, seconds, setting.seed, folder, pixels=setting.encoder != "compact")


def imitate(agent: RecurrentAgent, sets: Sequence[str], folder: Path, setting: argparse.Namespace) -> None:
    """Train an agent on level sets for the rest of the time."""
    minutes = (1 - BUILDING_SHARE) * setting.minutes
    settings = ImitationTraining(out=folder, levels=tuple(sets), minutes=minutes, warmup_steps=10, seed=setting.seed)
    train_imitation(settings, agent=agent)


def as_table(variants: Sequence[Variant]) -> list[str]:
    """The variants as lines of Markdown."""
    severities = list(variants[0].gains)
    lines = []
    for variant in variants:
        gain, constant, best = variant.means
        spread = "" if variant.spread is None else f" ± {variant.spread:.2f}"
        gains = [f"{value:+.2f}" for value in variant.gains.values()] if len(severities) > 1 else []
        share = f"{(gain - constant) / (best - constant):.0%}" if best > constant else ""
        bounds = (f"{constant:+.2f}", f"{best:+.2f}", share)
        lines.append([variant.name, *gains, f"{gain:+.2f}{spread}", *bounds, f"{variant.steps:.2f}"])
    columns = [*severities, "mean"] if len(severities) > 1 else severities
    heads = ["gain, dB", *columns, "best constant chain", "best chain", "share of choosing", "steps"]
    return markdown_table(heads, lines)


def run(arguments: argparse.Namespace) -> int:
    """Run one ablation and publish its table."""
    check_outputs(arguments)
    arguments.severity = list(dict.fromkeys(arguments.severity))
    for severity in (*arguments.severity, arguments.train_severity):
        check_severity(severity)
    with tempfile.TemporaryDirectory() as folder:
        arguments.explorer = Explorer(
            images=arguments.images,
            other_images=arguments.train_images,
            folder=Path(folder),
            patches=arguments.patches,
            other_patches=arguments.choose_patches,
            seed=arguments.seed,
        )
        variants = ABLATIONS[arguments.name](arguments)
    publish(arguments, "\n".join(as_table(variants)), {"variants": [asdict(variant) for variant in variants]})
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("name", choices=tuple(ABLATIONS))
    parser.add_argument("--images", type=Path, required=True, help="folder of held-out photographs")
    parser.add_argument("--train-images", type=Path, help="photographs to train on (default: the embedded ones)")
    parser.add_argument("--severity", nargs="+", default=[MIXED], help=f"to measure on (default {MIXED})")
    parser.add_argument("--train-severity", default=MIXED, help="of trainings (default %(default)s)")
    parser.add_argument("--toolbox", default="default", help="shipped name or folder")
    parser.add_argument(
        "--before", default="pure", help="of joint: a toolbox from before joint training (default pure)"
    )
    parser.add_argument("--policy", help="shipped name or file (default: the toolbox's own)")
    parser.add_argument("--encoder", choices=tuple(ENCODERS), default="compact", help="of agents that are trained")
    parser.add_argument("--patches", type=positive_int, default=500, help="per severity (default 500)")
    parser.add_argument(
        "--choose-patches",
        type=positive_int,
        default=100,
        help="to find constant chains on, per severity (default 100)",
    )
    parser.add_argument("--minutes", type=positive_float, default=5.0, help="of each training (default 5)")
    parser.add_argument("--seeds", type=positive_int, default=3, help="runs of each algorithm (default 3)")
    parser.add_argument("--seed", type=int, default=0)
    add_outputs(parser)
    parsed = parse(parser, arguments)
    parsed.policy = parsed.policy or str(policy_of(parsed.toolbox))
    return run_guarded(lambda: run(parsed), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
