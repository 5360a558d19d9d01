"""``imagerestore train``: tools, agents, the semantic prior and super-resolvers, within a budget."""

from __future__ import annotations

import argparse
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from tools_zoo.training.display import TrainingDisplay
    from tools_zoo.training.trainer import TrainingResult


class _Training(NamedTuple):
    help: str
    settings: str
    """Import string of the dataclass of its settings, which gives the options."""
    run: Callable[[Any, TrainingDisplay], Sequence[str]]
    """Trains and returns the lines to print."""
    shared: bool = True
    """Whether several processes can share it."""


def register(commands: Any) -> None:
    """Add ``train`` and what can be trained."""
    parser = commands.add_parser("train", help="train tools, an agent or super-resolvers within a budget; resumable")
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="WHAT")
    description = "Trains within a budget. The same command resumes a run that was stopped."
    for name, training in TRAININGS.items():
        kind = kinds.add_parser(name, help=training.help, description=description)
        kind.complete = partial(_complete, kind, training)
        kind.set_defaults(run=partial(_train, training))


def _complete(parser: argparse.ArgumentParser, training: _Training) -> None:
    """Add the options; imports PyTorch."""
    from tools_zoo.training.settings import add_options

    add_options(parser, pkgutil.resolve_name(training.settings))


def _train(training: _Training, arguments: argparse.Namespace) -> int:
    from tools_zoo.training.cards import command_line
    from tools_zoo.training.display import TrainingDisplay
    from tools_zoo.training.distributed import ProcessError, joined, launched
    from tools_zoo.training.settings import from_arguments

    if launched() > 1 and not training.shared:
        raise ProcessError(f"train {arguments.kind} runs in one process: start it without torchrun")
    command = command_line("imagerestore", arguments.words)
    given: Any = from_arguments(pkgutil.resolve_name(training.settings), arguments, command=command)
    with joined(given) as settings:
        with TrainingDisplay() as display:
            lines = training.run(settings, display)
        print(*lines, sep="\n")
    return 0


def _outcome(name: str, result: TrainingResult) -> str:
    return f"{name}: {result.steps} steps, {result.seconds:.0f} s"


def _train_tools(settings: Any, display: TrainingDisplay) -> list[str]:
    from tools_zoo.training.runs import photographs
    from tools_zoo.training.tools import train_tools

    display.wait_for(*(spec.name for spec in settings.order))
    results = train_tools(settings, photographs(settings, settings.patch_size), display.show_run)
    return [*(_outcome(name, result) for name, result in results.items()), f"Toolbox written to {settings.out}"]


def _train_joint(settings: Any, display: TrainingDisplay) -> list[str]:
    from agents.training.refresh import train_tools_and_agent

    results = train_tools_and_agent(settings, display.show_run)
    rounds = [_outcome(f"round {number}", result) for number, result in enumerate(results, 1)]
    return [*rounds, f"Toolbox written to {settings.out}"]


def _train_agent(settings: Any, display: TrainingDisplay) -> list[str]:
    from agents.training.agent import train_agent
    from agents.training.settings import AgentProgress

    unit = " dB" if settings.reward == "psnr" else f" ({settings.reward})"

    def show(now: AgentProgress) -> None:
        text = f"{now.steps} steps, return {now.gain:.2f}, validation {now.validation_gain:.2f}{unit}"
        if now.warm_start < 1:
            text = f"warm start {now.warm_start:.0%}"
        display.show("agent", now.share, text)

    _, progress = train_agent(settings, show)
    return [
        f"{progress.steps} steps, validation gain {progress.validation_gain:.2f}{unit}",
        *([progress.remark] if progress.remark else []),
        f"Policy written to {settings.out / 'agent.safetensors'}",
    ]


def _train_imitation(settings: Any, display: TrainingDisplay) -> list[str]:
    from agents.imitation.imitation import train_imitation

    agent, gain = train_imitation(settings, display.show_run)
    return [
        f"{agent.recipe['steps']} steps on {agent.recipe['states']} states, held-out levels: gain {gain:.3f},"
        f" {agent.recipe['share_output']:.0%} of what choosing is worth",
        f"Policy written to {settings.out / 'agent.safetensors'}",
    ]


def _train_prior(settings: Any, display: TrainingDisplay) -> list[str]:
    from sr_models.prior.categories import CATEGORIES
    from sr_models.prior.labels import LabelledImages
    from sr_models.training.prior import train_prior

    result, scores = train_prior(settings, LabelledImages(*settings.labels), display.show_run)
    ious = ", ".join(f"{name} {iou:.3f}" for name, iou in zip(CATEGORIES, scores.ious, strict=True))
    return [
        _outcome("prior", result),
        f"Validation: pixel accuracy {scores.accuracy:.3f}, mean IoU {scores.mean_iou:.3f} ({ious})",
        f"Prior written to {settings.out / 'prior.safetensors'}",
    ]


def _train_sr(settings: Any, display: TrainingDisplay) -> list[str]:
    from sr_models.training.super_resolution import FrozenNetworks, train_sr
    from tools_zoo.training.runs import photographs

    display.wait_for(*settings.budgets)
    source = photographs(settings, settings.crop_size)
    frozen = FrozenNetworks.load(settings)
    results = train_sr(settings, source, frozen, display.show_run)
    return [*(_outcome(name, result) for name, result in results.items()), f"Weights written to {settings.out}"]


TRAININGS: Mapping[str, _Training] = MappingProxyType(
    {
        "tools": _Training("any or all of the twelve tools", "tools_zoo.training.tools:ToolTraining", _train_tools),
        "agent": _Training(
            "the agent that composes toolchains",
            "agents.training.settings:AgentTraining",
            _train_agent,
            shared=False,
        ),
        "imitation": _Training(
            "an agent, on level sets, where the reward of every tool is known",
            "agents.imitation.imitation:ImitationTraining",
            _train_imitation,
            shared=False,
        ),
        "joint": _Training(
            "the tools of a toolbox, on the chains that an agent makes of them",
            "agents.training.refresh:JointAgentTraining",
            _train_joint,
        ),
        "prior": _Training(
            "the semantic prior of super-resolution, on labelled photographs",
            "sr_models.training.settings:PriorTraining",
            _train_prior,
        ),
        "sr": _Training(
            "a x4 super-resolver, SFT-GAN or SeD: PSNR stage, then GAN stage",
            "sr_models.training.settings:SrTraining",
            _train_sr,
        ),
    }
)
"""What can be trained."""
