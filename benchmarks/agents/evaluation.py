"""Evaluation of policies on the same patches, and paired differences between them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch

from agents.agent import check_tools, load_policy
from agents.policies.heuristics import best_chains
from agents.policy_input import PolicyInput
from agents.rollout import EpisodeResults, draw_starts, play
from benchmarks.report.intervals import Estimate, estimate
from benchmarks.report.publishing import markdown_table
from restore_env import Task
from restore_env.metrics import Metric
from restore_env.policy import Policy
from restore_env.sampling import EpisodeStart
from restore_env.toolbox import Toolbox
from tools_zoo import load_toolbox
from tools_zoo.training.losses import as_tensor

AGENT = "agent"
"""The name of the agent that is measured."""
GREEDY = "greedy oracle"
"""The name of the oracle whose gain others with the same tools are given as a share of."""


@dataclass(frozen=True)
class EvaluatedPolicy:
    """A policy with its tools."""

    name: str
    policy: Policy
    toolbox: Toolbox
    oracle: str = GREEDY
    """Name of the greedy oracle with the same tools."""

    @classmethod
    def load(
        cls,
        name: str,
        toolbox: str | os.PathLike[str],
        policy: str | os.PathLike[str],
        oracle: str = GREEDY,
        device: str = "cpu",
    ) -> EvaluatedPolicy:
        """A toolbox and the policy that belongs to it, by shipped name, file or folder.

        Raises:
            ValueError: there is no such toolbox or policy, or the policy was trained with other tools.
        """
        tools, agent = load_toolbox(toolbox, device), load_policy(policy, device)
        check_tools(agent, tools.names, policy)
        return cls(name, agent, tools, oracle)

    def play(
        self, task: Task, starts: Sequence[EpisodeStart], metrics: Mapping[str, Metric] = MappingProxyType({})
    ) -> EpisodeResults:
        """Run one episode from each start with the policy's own tools and kind of observation."""
        own = replace(task, toolbox=self.toolbox, dtype=PolicyInput.of(self.policy).observe)
        return play(self.policy, own, starts, metrics=metrics)


def search_chains(toolbox: Toolbox, task: Task, count: int, beam: int, seed: int) -> dict[int, list[tuple[int, ...]]]:
    """The best fixed chains of each length up to ``task.max_steps`` on ``count`` patches, the best one first."""
    starts = draw_starts(task, count, seed)
    images, targets = (
        as_tensor(np.stack([getattr(start, side) for start in starts]), toolbox.device).contiguous()
        for side in ("degraded", "target")
    )
    with torch.inference_mode():
        return best_chains(toolbox, images, targets, depth=task.max_steps, beam=beam)


def parse_policy(text: str) -> EvaluatedPolicy:
    """Load ``NAME=FOLDER``: a toolbox's folder with its ``agent.safetensors``, as ``import-rl-restore`` writes it.

    Raises:
        ValueError: not of that form, or nothing that can be loaded.
    """
    name, separator, folder = text.partition("=")
    if not (name.strip() and separator and folder):
        raise ValueError(f"--against takes NAME=FOLDER, got {text!r}")
    if not Path(folder).is_dir():
        raise ValueError(f"{folder}: no such folder")
    return EvaluatedPolicy.load(name.strip(), folder, folder, oracle=f"{GREEDY}, {name.strip()} tools")


@dataclass(frozen=True)
class PolicyScores:
    """One line of a table: means over the patches."""

    policy: str
    psnr: float
    """dB, of the restored patches."""
    gain: float
    """dB."""
    interval: float
    """Half of the gain's 95 % confidence interval, dB, by bootstrap over photographs."""
    share: float | None
    """The gain, as a share of that of the greedy oracle with the same tools; None if there are none of that one."""
    steps: float
    gmacs: float
    """Of the tools, a patch."""
    milliseconds: float
    """Wall time a patch, of choosing, tools and measuring, in this run."""


def scores_of(played: Mapping[str, EpisodeResults], oracles: Mapping[str, str]) -> list[PolicyScores]:
    """The lines of one severity's table.

    Args:
        played: the results of each policy, by name.
        oracles: the name of the greedy oracle with a policy's tools, where it is not :data:`GREEDY`.
    """
    gains = {name: result.gain for name, result in played.items()}
    bounds = {name: gains.get(oracles.get(name, GREEDY)) for name in played}
    return [
        PolicyScores(
            policy=name,
            psnr=float(result.psnr.mean()),
            gain=result.gain,
            interval=estimate((result.psnr - result.initial_psnr, result.images)).half,
            share=None if not (bound := bounds[name]) else result.gain / bound,
            steps=float(np.mean([len(actions) for actions in result.actions])),
            gmacs=float(result.gmacs.mean()),
            milliseconds=1000 * result.seconds / len(result.psnr),
        )
        for name, result in played.items()
    ]


def scores_table(rows: Sequence[PolicyScores]) -> list[str]:
    """The rows as lines of Markdown."""
    with_share = any(row.share is not None for row in rows)
    names = ["policy", "PSNR, dB", "gain, dB (95 %)", "of greedy", "steps", "GMAC a patch", "ms a patch"]
    if not with_share:
        names.remove("of greedy")
    lines = []
    for row in rows:
        share = [] if not with_share else ["" if row.share is None else f"{row.share:.0%}"]
        gain = f"{row.gain:+.2f} ± {row.interval:.2f}"
        costs = [f"{row.steps:.2f}", f"{row.gmacs:.2f}", f"{row.milliseconds:.0f}"]
        lines.append([row.policy, f"{row.psnr:.2f}", gain, *share, *costs])
    return markdown_table(names, lines)


@dataclass(frozen=True)
class Difference:
    """The agent's PSNR minus a baseline's on the same patches, dB."""

    baseline: str
    by_severity: Mapping[str, Estimate]
    mean: Estimate
    """Of the severities, each counting the same."""


def difference(baseline: str, played: Mapping[str, Mapping[str, EpisodeResults]]) -> Difference:
    """Compare the agent with a baseline, patch by patch, in every severity that was ``played``."""
    ahead = {
        severity: (results[AGENT].psnr - results[baseline].psnr, results[AGENT].images)
        for severity, results in played.items()
    }
    by_severity = {severity: estimate(part) for severity, part in ahead.items()}
    return Difference(baseline, by_severity, estimate(*ahead.values()))


def differences_table(differences: Sequence[Difference]) -> list[str]:
    """The differences as lines of Markdown."""
    heads = ["the agent against", *(f"{name}, dB" for name in differences[0].by_severity), "mean, dB"]
    lines = []
    for row in differences:
        cells = [*row.by_severity.values(), row.mean]
        lines.append([row.baseline, *(f"{cell.mean:+.2f} ± {cell.half:.2f}" for cell in cells)])
    return markdown_table(heads, lines)
