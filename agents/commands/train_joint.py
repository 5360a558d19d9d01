"""``imagerestore train joint``: the tools of a toolbox from the final images of an agent's toolchains."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.command_line import positive_float, positive_int, share
from agents.commands.arguments import (
    add_clipped_share,
    add_common,
    add_drawing,
    add_schedule,
    add_severity,
    schedule_of,
)

if TYPE_CHECKING:
    from agents.agent import RecurrentAgent

_MAY_DIFFER = {"version", "command"}
"""Of how an agent was taught: what may differ where a run goes on."""
_BEFORE_THERE_WAS = {"saturation_prob": 0.0}
"""What an agent that does not say was taught with."""


def register(kinds: Any) -> None:
    """Add ``train joint``."""
    parser = kinds.add_parser(
        "joint",
        help="train a toolbox further on the chains that an agent makes of it",
        description="A run that was stopped goes on when repeated.",
    )
    add_common(parser)
    parser.add_argument("--toolbox", default="default", help="what to start from: shipped name or folder")
    parser.add_argument("--policy", help="what picks the chains: shipped name or file (default: the toolbox's own)")
    parser.add_argument(
        "--chain",
        nargs="+",
        metavar="TOOL",
        help="these tools, in this order, in place of the policy until it is refreshed",
    )
    parser.add_argument(
        "--init-from",
        nargs="+",
        type=_copy,
        action="extend",
        default=[],
        metavar="TOOL=OTHER",
        help="tools that begin as copies of others of the toolbox",
    )
    parser.add_argument(
        "--zero-init",
        nargs="+",
        action="extend",
        default=[],
        metavar="TOOL",
        help="tools that begin by handing on what they get: their last layer starts at zero, so that a chain grows by"
        " them and loses nothing",
    )
    parser.add_argument(
        "--freeze",
        nargs="+",
        action="extend",
        default=[],
        metavar="TOOL",
        help="tools that stay as they are, for the others to learn what to make of their images",
    )
    parser.add_argument(
        "--intermediate_weight",
        type=share,
        default=0.0,
        help="weight of the images on the way in the loss, so that chains may end anywhere (default 0, as published)",
    )
    add_severity(parser)
    parser.add_argument(
        "--single-share",
        type=share,
        default=0.0,
        help="share of the patches, in validation and an agent's refresh, too, that have one distortion alone, so that"
        " tools learn to be gentle; the others are of --severity (default 0)",
    )
    add_clipped_share(parser)
    parser.add_argument("--chain-length", type=positive_int, help="tools in a chain at most (default 3)")
    parser.add_argument("--exploration", type=share, default=0.1, help="share of random tools (default 0.1)")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=positive_float, help="wall-clock budget of all rounds (default 30)")
    budget.add_argument("--steps", type=positive_int, help="steps of all rounds, instead of minutes")
    parser.add_argument("--rounds", type=positive_int, default=1, help="rounds of joint training (default 1)")
    parser.add_argument(
        "--refresh",
        type=positive_float,
        metavar="MINUTES",
        help="after each round let the agent learn, so long, to choose among the new tools (default: it stays)",
    )
    parser.add_argument("--batch-size", type=positive_int, default=32, help="chains a step (default 32)")
    parser.add_argument(
        "--patch-size",
        type=positive_int,
        help="pixels; other than the policy's only with --chain (default: the policy's)",
    )
    add_schedule(parser, {"muon": 1e-3, "adam": 5e-4})
    add_drawing(parser)
    parser.set_defaults(run=train_joint)


def _copy(text: str) -> tuple[str, str]:
    name, separator, other = text.partition("=")
    if not (name and separator and other):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form TOOL=OTHER")
    return name, other


def train_joint(arguments: argparse.Namespace) -> int:
    """Run ``imagerestore train joint``."""
    from torch.nn import Module, ModuleList

    from agents.agent import check_tools, load_policy, policy_of, save_policy
    from agents.commands.training_display import TrainingDisplay, clean_photographs
    from agents.imitation.demonstrations import single_distortion_tasks
    from agents.imitation.imitation import learn_from_oracle
    from agents.policies.heuristics import FixedChain
    from agents.policy_input import PolicyInput
    from restore_env.policy import Policy
    from restore_env.task import Task
    from restore_env.toolbox import Toolbox
    from tools_zoo.toolboxes import read_manifest, toolbox_folder
    from tools_zoo.training.cards import command_line, source_version
    from tools_zoo.training.joint import JointProgress, JointTraining, train_jointly
    from tools_zoo.training.settings import Budget
    from tools_zoo.training.trainer import digest

    policy = arguments.policy or policy_of(arguments.toolbox)
    agent = load_policy(policy, arguments.device)
    folder = toolbox_folder(arguments.toolbox)
    tools = tuple(name for name, _ in read_manifest(folder))
    check_tools(agent, tools, policy)
    if arguments.patch_size not in (None, agent.patch_size) and (arguments.chain is None or arguments.rounds > 1):
        raise ValueError(f"--patch-size {arguments.patch_size}: {policy} looks at patches of {agent.patch_size} pixels")
    if arguments.chain and arguments.chain_length not in (None, len(arguments.chain)):
        raise ValueError(
            f"--chain names {len(arguments.chain)} tools: leave out --chain-length {arguments.chain_length}"
        )
    begun = [name for name, _ in arguments.init_from]
    twice = [name for name in begun if begun.count(name) > 1]
    if twice:
        raise ValueError(f"--init-from names {twice[0]} twice: a tool begins as a copy of one other")
    copied = [name for pair in arguments.init_from for name in pair]
    named = {
        "--chain": arguments.chain or (),
        "--init-from": copied,
        "--zero-init": arguments.zero_init,
        "--freeze": arguments.freeze,
    }
    for option, names in named.items():
        unknown = [name for name in names if name not in tools]
        if unknown:
            raise ValueError(f"unknown tool {unknown[0]!r} in {option}: choose from {', '.join(tools)}")
    idle = [name for name in arguments.zero_init if arguments.chain and name not in arguments.chain]
    if idle:
        raise ValueError(f"--zero-init {idle[0]}: --chain has no such step, so it would not learn")
    kept = set(arguments.freeze)
    if kept.issuperset(arguments.chain or tools):
        raise ValueError(f"--freeze {' '.join(arguments.freeze)}: nothing is left to learn")
    stuck = kept.intersection(arguments.zero_init)
    if stuck:
        raise ValueError(f"--freeze {min(stuck)}: --zero-init names it, too, so it would hand on what it gets for ever")
    settings = JointTraining(
        out=arguments.out,
        toolbox=folder,
        copies=dict(arguments.init_from),
        zero_init=tuple(arguments.zero_init),
        frozen_tools=tuple(arguments.freeze),
        budget=Budget(minutes=None if arguments.steps else arguments.minutes or 30.0, steps=arguments.steps),
        severity=arguments.severity,
        single_share=arguments.single_share,
        saturation_prob=arguments.saturation_prob,
        chain_length=len(arguments.chain or ()) or arguments.chain_length or 3,
        exploration=arguments.exploration,
        rounds=arguments.rounds,
        loss=arguments.loss,
        intermediate_weight=arguments.intermediate_weight,
        batch_size=arguments.batch_size,
        patch_size=arguments.patch_size or agent.patch_size,
        observe=PolicyInput.of(agent).observe,
        seed=arguments.seed,
        device=arguments.device,
        draws=arguments.draws,
        workers=arguments.workers,
        policy=command_line("", arguments.chain or [str(policy)]),
        command=command_line("imagerestore", sys.argv[1:]),
        schedule=schedule_of(arguments),
    )
    source = clean_photographs(arguments, settings.patch_size)
    with TrainingDisplay() as display:

        def show(now: JointProgress) -> None:
            quality = f"{now.psnr_input:.2f} -> {now.psnr_output:.2f} dB"
            display.show_steps(f"round {now.round + 1}", now.progress, quality)

        def refresh(toolbox: Toolbox, number: int) -> Policy:
            task = Task(
                images=arguments.images,
                cache_dir=arguments.cache_dir,
                severity=settings.severity,
                saturation_prob=settings.saturation_prob,
                max_steps=settings.chain_length,
                toolbox=toolbox,
                device=settings.device,
            )

            def learning(progress: float) -> None:
                display.show(f"agent {number + 1}", progress, f"{progress:.0%} of its time")

            path = settings.out / f"round-{number + 1}.agent.safetensors"
            recipe = {
                "algorithm": "imitation of a greedy oracle, after each round of joint training",
                "rounds": number + 1,
                "minutes_a_round": arguments.refresh,
                "precision": arguments.precision,
                "severity": settings.severity,
                "single_share": settings.single_share,
                "saturation_prob": settings.saturation_prob,
                "max_steps": settings.chain_length,
                "seed": settings.seed,
                "encoder": agent.extractor.encoder,
                "init": settings.policy,
                "taught_with": digest(ModuleList(tool for tool in toolbox if isinstance(tool, Module))),
                "version": source_version(),
                "command": settings.command,
            }
            if path.exists():
                taught = _taught_before(path, recipe)
                agent.load_state_dict(taught.state_dict())
                agent.recipe = taught.recipe
                return agent
            learn_from_oracle(
                agent,
                task,
                arguments.refresh * 60,
                settings.seed + number,
                pretrained=True,
                precision=arguments.precision,
                extra_tasks=single_distortion_tasks(task, settings.single_share),
                report=learning,
            )
            agent.recipe = recipe
            save_policy(agent, path)
            return agent

        first: Policy = agent
        if arguments.chain:
            first = FixedChain(tuple(tools.index(name) for name in arguments.chain), len(tools))
        results = train_jointly(settings, source, first, refresh if arguments.refresh else None, show)
    for number, result in enumerate(results, 1):
        state = "finished" if result.finished else "ended by the clock"
        print(f"round {number}: {result.steps} steps, {result.seconds:.0f} s, {state}")
    save_policy(agent, arguments.out / "agent.safetensors")
    print(f"Toolbox written to {arguments.out}")
    return 0


def _taught_before(path: Path, recipe: Mapping[str, Any]) -> RecurrentAgent:
    """The agent that an earlier start of the same run taught.

    Raises:
        PolicyError: it was taught otherwise, or with other tools.
    """
    from agents.agent import PolicyError, load_policy

    agent = load_policy(path)
    for name in recipe.keys() - _MAY_DIFFER:
        before = agent.recipe.get(name, _BEFORE_THERE_WAS.get(name))
        if before != recipe[name]:
            raise PolicyError(
                f"{path}: was taught with {name} {before}, not {recipe[name]}; delete it, and the agent is taught anew"
            )
    return agent
