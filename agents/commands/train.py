"""``imagerestore train``: tools (and the agent that composes them) from photographs, within a budget."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from agents.command_line import positive_float, positive_int, share
from agents.commands.arguments import (
    add_backend,
    add_clipped_share,
    add_common,
    add_drawing,
    add_schedule,
    add_severity,
    schedule_of,
)

DISTORTION_SHARE = 0.3
"""Share of the warm start that carries a distortion of one's own, unless another is asked for."""


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
        description="A run that was stopped goes on when repeated.",
    )
    add_common(parser)
    parser.add_argument("--toolbox", default="default", help="shipped name or folder (default: default)")
    add_backend(parser)
    add_severity(parser)
    add_clipped_share(parser)
    parser.add_argument(
        "--upscale",
        type=int,
        nargs="+",
        choices=(1, 4),
        default=[1],
        help="task factors: 1 same size (default), 4 low resolution, 1 4 both; with 4 the super-resolvers join the"
        " toolbox",
    )
    parser.add_argument(
        "--reward",
        default="psnr",
        metavar="NAME",
        help="what is gained: psnr (default), ssim, perceptual, or package.module:function",
    )
    parser.add_argument("--max-steps", type=positive_int, default=3, help="tools in a chain at most (default 3)")
    parser.add_argument("--cost-weight", type=float, default=0.0, help="price of computation, reward (dB) per GMAC")
    parser.add_argument("--init", help="policy to start from, of these tools or some of them: shipped name or file")
    parser.add_argument(
        "--encoder",
        choices=("published", "spectral"),
        default="published",
        help="network that encodes a patch, without --init: published, RL-Restore's four convolutions (default);"
        " spectral, a cosine transform and two layers, which --warm-start trains quickly",
    )
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=positive_float, help="wall-clock budget (default 30)")
    budget.add_argument("--steps", type=positive_int, help="environment steps, instead of minutes")
    parser.add_argument(
        "--algorithm",
        choices=("ppo", "drqn"),
        default="ppo",
        help="RecurrentPPO (default) or deep recurrent Q-learning; hyperparameters in agents/hyperparameters",
    )
    parser.add_argument("--envs", type=positive_int, help="environments side by side (default: the algorithm's)")
    parser.add_argument("--learning-rate", type=positive_float, help="at the start (default: the algorithm's)")
    parser.add_argument(
        "--warm-start",
        type=positive_float,
        metavar="MINUTES",
        help="first learn from an oracle that tries every tool, on top of the budget",
    )
    parser.add_argument(
        "--single-share",
        type=share,
        default=0.0,
        help="share of the warm start's episodes that start from one distortion alone (default 0)",
    )
    parser.add_argument(
        "--distortion",
        metavar="PACKAGE.MODULE:FACTORY",
        help="makes an albumentations.Compose that a share of the warm start's episodes carry, such as"
        " restore_env.distortions.transforms:camera",
    )
    parser.add_argument(
        "--distortion-share", type=share, help="that share (default: 0.3 with --distortion)", metavar="SHARE"
    )
    parser.add_argument(
        "--precision", choices=("fp32", "bf16"), default="fp32", help="bf16 is faster only where the hardware has it"
    )
    parser.set_defaults(run=train_agent)


def _distortion_share(arguments: argparse.Namespace) -> float:
    """The share of the warm start that carries a distortion of one's own; ValueError where there is none to carry."""
    if arguments.distortion is None:
        if arguments.distortion_share:
            raise ValueError("--distortion-share is a share of the distortion that --distortion names: add it")
        return 0.0
    if not arguments.warm_start:
        raise ValueError("--distortion is for the warm start: add --warm-start MINUTES")
    return DISTORTION_SHARE if arguments.distortion_share is None else float(arguments.distortion_share)


def train_agent(arguments: argparse.Namespace) -> int:
    """Run ``imagerestore train agent``."""
    from agents.commands.training_display import TrainingDisplay
    from agents.training.agent import AgentProgress, AgentTraining
    from agents.training.agent import train_agent as train
    from agents.training.algorithms import ALGORITHMS
    from restore_env.task import Task
    from sr_models import with_super_resolvers
    from tools_zoo.toolboxes import load_toolbox
    from tools_zoo.training.cards import command_line
    from tools_zoo.training.settings import Budget

    toolbox = load_toolbox(arguments.toolbox, arguments.device, arguments.backend)
    if max(arguments.upscale) > 1:
        toolbox = with_super_resolvers(toolbox)
    minutes = None if arguments.steps else arguments.minutes or 30.0
    chosen = {"n_envs": arguments.envs, "learning_rate": arguments.learning_rate}
    changes = {name: value for name, value in chosen.items() if value is not None}
    settings = AgentTraining(
        out=arguments.out,
        budget=Budget(minutes=minutes, steps=arguments.steps),
        task=Task(
            images=arguments.images,
            severity=arguments.severity,
            saturation_prob=arguments.saturation_prob,
            upscale=arguments.upscale,
            reward=arguments.reward,
            max_steps=arguments.max_steps,
            cost_weight=arguments.cost_weight,
            toolbox=toolbox,
            device=arguments.device,
            cache_dir=arguments.cache_dir,
        ),
        algorithm=ALGORITHMS[arguments.algorithm].defaults(**changes),
        init=arguments.init,
        encoder=arguments.encoder,
        warm_start_minutes=arguments.warm_start or 0.0,
        single_share=arguments.single_share,
        distortion=arguments.distortion,
        distortion_share=_distortion_share(arguments),
        precision=arguments.precision,
        seed=arguments.seed,
        command=command_line("imagerestore", sys.argv[1:]),
    )
    unit = " dB" if arguments.reward == "psnr" else f" ({arguments.reward})"
    with TrainingDisplay("agent") as display:

        def show(now: AgentProgress) -> None:
            said = f"{now.steps} steps, return {now.gain:.2f}, validation {now.validation_gain:.2f}{unit}"
            if now.warm_start < 1:
                said = f"warm start {now.warm_start:.0%}"
            display.show("agent", now.share, said)

        _, progress = train(settings, show)
    print(f"{progress.steps} steps, validation gain {progress.validation_gain:.2f}{unit}")
    print(f"Policy written to {arguments.out / 'agent.safetensors'}")
    return 0
