"""``imagerestore train``: tools (and the agent that composes them) from photographs, within a budget."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from agents.command_line import positive_float, positive_int, share
from agents.commands.arguments import (
    add_common,
    add_drawing,
    add_schedule,
    schedule_of,
)


def register(commands: Any) -> None:
    """Add ``train`` and what can be trained."""
    parser = commands.add_parser("train", help="train tools or the agent within a budget; resumable")
    from agents.commands import train_joint, train_prior, train_sr

    kinds = parser.add_subparsers(dest="kind", required=True, metavar="WHAT")
    _register_tools(kinds)
    _register_agent(kinds)
    train_joint.register(kinds)
    train_prior.register(kinds)
    train_sr.register(kinds)


def _register_tools(kinds: Any) -> None:
    parser = kinds.add_parser(
        "tools",
        help="train any or all of the twelve tools",
        description="A run that was stopped goes on when repeated.",
    )
    add_common(parser)
    parser.add_argument("--tools", nargs="+", default=["all"], metavar="NAME", help='tool names, or "all"')
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=positive_float, help="wall-clock budget for all tools together (default 30)")
    budget.add_argument("--steps", type=positive_int, help="steps of every tool, instead of minutes")
    parser.add_argument("--batch-size", type=positive_int, default=16)
    parser.add_argument("--patch-size", type=positive_int, default=48)
    add_schedule(parser, {"muon": 3e-3, "adam": 2e-3})
    parser.add_argument("--init", help="toolbox whose weights training starts from: shipped name or folder")
    parser.add_argument(
        "--slight-share",
        type=share,
        default=0.5,
        help="share of the patches that get slight noise and JPEG as well (default 0.5)",
    )
    parser.add_argument(
        "--mixed-share",
        type=share,
        default=0.0,
        help="share of the patches that carry a moderate mixture of all distortions (default 0)",
    )
    parser.add_argument(
        "--shapes", choices=("published", "hourglass"), default="published", help="networks (default: published)"
    )
    parser.add_argument("--cold", action="store_true", help="do not start tools from one another's weights")
    add_drawing(parser)
    parser.set_defaults(run=train_tools)


def train_tools(arguments: argparse.Namespace) -> int:
    """Run ``imagerestore train tools``."""
    from agents.commands.training_display import TrainingDisplay, clean_photographs
    from tools_zoo.catalog import TOOLS, training_order
    from tools_zoo.toolboxes import toolbox_folder
    from tools_zoo.training.cards import command_line
    from tools_zoo.training.settings import Budget
    from tools_zoo.training.tools import ToolProgress, ToolTraining
    from tools_zoo.training.tools import train_tools as train

    names = tuple(spec.name for spec in TOOLS) if "all" in arguments.tools else tuple(arguments.tools)
    training_order(names)
    minutes = None if arguments.steps else arguments.minutes or 30.0
    settings = ToolTraining(
        out=arguments.out,
        budget=Budget(minutes=minutes, steps=arguments.steps),
        tools=names,
        warm_start=not arguments.cold,
        init=None if arguments.init is None else toolbox_folder(arguments.init),
        slight_share=arguments.slight_share,
        mixed_share=arguments.mixed_share,
        shapes=arguments.shapes,
        loss=arguments.loss,
        batch_size=arguments.batch_size,
        patch_size=arguments.patch_size,
        seed=arguments.seed,
        device=arguments.device,
        draws=arguments.draws,
        workers=arguments.workers,
        command=command_line("imagerestore", sys.argv[1:]),
        schedule=schedule_of(arguments),
    )
    source = clean_photographs(arguments, arguments.patch_size)
    with TrainingDisplay(*names) as display:

        def show(now: ToolProgress) -> None:
            display.show_steps(now.tool, now.progress, f"{now.psnr_input:.2f} -> {now.psnr_output:.2f} dB")

        fitted = train(settings, source, show)
    for name, result in fitted.items():
        state = "finished" if result.finished else "out of time; the same command with more minutes goes on"
        print(f"{name}: {result.steps} steps, {result.seconds:.0f} s, {state}")
    print(f"Toolbox written to {arguments.out}")
    return 0


def _register_agent(kinds: Any) -> None:
    parser = kinds.add_parser(
        "agent",
        help="train the agent that composes toolchains",
        description="Trains an agent within a budget. The same command resumes a run that was stopped.",
    )

    def complete() -> None:
        from agents.training.settings import AgentTraining
        from tools_zoo.training.settings import add_options

        add_options(parser, AgentTraining)

    parser.complete = complete
    parser.set_defaults(run=train_agent)


def train_agent(arguments: argparse.Namespace) -> int:
    """Run ``imagerestore train agent``."""
    from agents.commands.training_display import TrainingDisplay
    from agents.training.agent import train_agent as train
    from agents.training.settings import AgentProgress, AgentTraining
    from tools_zoo.training.cards import command_line
    from tools_zoo.training.settings import from_arguments

    settings = from_arguments(AgentTraining, arguments, command=command_line("imagerestore", sys.argv[1:]))
    unit = " dB" if settings.reward == "psnr" else f" ({settings.reward})"
    with TrainingDisplay("agent") as display:

        def show(now: AgentProgress) -> None:
            text = f"{now.steps} steps, return {now.gain:.2f}, validation {now.validation_gain:.2f}{unit}"
            if now.warm_start < 1:
                text = f"warm start {now.warm_start:.0%}"
            display.show("agent", now.share, text)

        _, progress = train(settings, show)
    print(f"{progress.steps} steps, validation gain {progress.validation_gain:.2f}{unit}")
    print(f"Policy written to {settings.out / 'agent.safetensors'}")
    return 0
