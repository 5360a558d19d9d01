"""Joint training of tools and agent: after each round the agent is refreshed, that is, trained on the new tools.

Tools learn from the chains that the agent composes (:mod:`tools_zoo.training.joint`); the agent then learns by
imitation of the best chains to choose among the tools as they have become. Source: Yu et al., CVPR 2018, section 3.3.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import nn

from agents.agent import RecurrentAgent, check_recipe, load_policy, policy_of, save_policy
from agents.imitation.warm_start import warm_start
from agents.policies.heuristics import FixedChain
from agents.policy_input import PolicyInput
from restore_env.task import Task
from restore_env.toolbox import Toolbox
from tools_zoo.toolboxes import read_manifest
from tools_zoo.training.cards import source_version
from tools_zoo.training.distributed import by_first, count
from tools_zoo.training.joint import IDENTITY, JointTraining, train_jointly
from tools_zoo.training.runs import photographs
from tools_zoo.training.settings import identity, option, recipe
from tools_zoo.training.trainer import Progress, Report, TrainingResult, digest


@dataclass(frozen=True, kw_only=True)
class JointAgentTraining(JointTraining):
    """The settings of ``imagerestore train joint``."""

    chain: tuple[str, ...] = option(
        (), "these tools, in this order, in place of the policy until it is refreshed", metavar="TOOL"
    )
    refresh: float | None = option(
        None,
        "train the agent on the new tools for so long after each round (default: it stays)",
        values="positive",
        metavar="MINUTES",
        recorded=False,
    )


def train_tools_and_agent(settings: JointAgentTraining, report: Report = lambda _: None) -> list[TrainingResult]:
    """Train the tools of a toolbox on an agent's chains, and the agent on the tools, in turn.

    Writes the toolbox and ``agent.safetensors`` into ``settings.out``. A run that was interrupted goes on when it is
    repeated.

    Args:
        settings: what to do; without a policy it is the toolbox's own.
        report: called about twice a second.

    Returns:
        What each round gave.

    Raises:
        PolicyError: a policy for other tools, or an agent in ``out`` that was trained with other settings.
        ValueError: an unknown tool, or patches of a size that the policy does not take.
    """
    policy = settings.policy or policy_of(settings.toolbox)
    tools = tuple(name for name, _ in read_manifest(settings.folder))
    agent = load_policy(policy, settings.device, tools)
    _check(settings, agent, tools, policy)
    settings = replace(
        settings,
        policy=str(policy),
        observe=PolicyInput.of(agent).observe,
        chain_length=len(settings.chain) or settings.chain_length,
    )

    def refresh(toolbox: Toolbox, number: int) -> RecurrentAgent:
        def train() -> None:
            refresh_agent(settings, agent, toolbox, number, report)

        by_first(train)
        return agent if count() == 1 else refresh_agent(settings, agent, toolbox, number)  # which loads it

    first = FixedChain(tuple(tools.index(name) for name in settings.chain), len(tools)) if settings.chain else agent
    source = photographs(settings, settings.patch_size)
    results = train_jointly(settings, source, first, refresh if settings.refresh else None, report)
    by_first(lambda: save_policy(agent, settings.out / "agent.safetensors"))
    return results


def refresh_agent(
    settings: JointAgentTraining, agent: RecurrentAgent, toolbox: Toolbox, number: int, report: Report = lambda _: None
) -> RecurrentAgent:
    """Train the agent, in place, on the tools of a round, for ``settings.refresh`` minutes, and write it into ``out``.

    One that an earlier start of the same run has written is loaded instead.

    Raises:
        PolicyError: that one was trained with other settings or tools.
    """
    seconds = 60 * (settings.refresh or 0.0)
    task = Task(
        images=settings.images,
        cache_dir=settings.cache_dir,
        severity=settings.severity,
        saturation_prob=settings.saturation_prob,
        max_steps=settings.chain_length,
        toolbox=toolbox,
        device=settings.device,
    )
    path = settings.out / f"round-{number + 1}.agent.safetensors"
    compared = {
        **identity(settings),
        "algorithm": "imitation of the best chains, after each round of joint training",
        "round": number + 1,
        "refresh": settings.refresh,
        "encoder": agent.extractor.encoder,
        "trained_with": digest(nn.ModuleList(tool for tool in toolbox if isinstance(tool, nn.Module))),
    }
    if path.exists():
        before = load_policy(path)
        check_recipe(path, before.recipe, compared)
        agent.load_state_dict(before.state_dict())
        agent.recipe = before.recipe
        return agent
    name, total = f"agent {number + 1}", max(1, round(seconds))
    warm_start(
        agent,
        task,
        seconds,
        settings.seed + number,
        settings.out / f"round-{number + 1}.levels",
        report=lambda share: report(Progress(round(share * total), total, 0, 0, share * seconds, name, unit="s")),
        trained=True,
    )
    agent.recipe = {**asdict(PolicyInput.of(agent)), **recipe(settings), **compared, "version": source_version()}
    save_policy(agent, path)
    return agent


def _check(settings: JointAgentTraining, agent: RecurrentAgent, tools: tuple[str, ...], policy: str | Path) -> None:
    by_distortion = settings.chains == "distortion"
    if by_distortion and settings.chain:
        raise ValueError("chain names the tools: leave out either it or chains=distortion")
    follows = not (settings.chain or by_distortion)
    if settings.patch_size != agent.patch_size and (follows or settings.refresh):
        raise ValueError(f"patch_size {settings.patch_size}: {policy} takes patches of {agent.patch_size} pixels")
    unknown = [name for name in settings.chain if name not in tools]
    if unknown:
        raise ValueError(f"unknown tool {unknown[0]!r} in chain: choose from {', '.join(tools)}")
    default = type(settings).__dataclass_fields__["chain_length"].default
    if settings.chain and settings.chain_length not in (default, len(settings.chain)):
        raise ValueError(f"chain names {len(settings.chain)} tools: leave out chain_length {settings.chain_length}")
    starts = (pair.partition("=") for pair in settings.initial_weights)
    idle = [name for name, _, other in starts if other == IDENTITY and settings.chain and name not in settings.chain]
    if idle:
        raise ValueError(f"initial_weights {idle[0]}={IDENTITY}: chain has no such step, so it would not be trained")
    if settings.chain and set(settings.frozen_tools).issuperset(settings.chain):
        raise ValueError(f"frozen_tools {' '.join(settings.frozen_tools)}: nothing is left to learn")
