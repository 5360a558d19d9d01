"""What is compared: a policy with its tools."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import nn

from agents.agent import RecurrentAgent
from agents.policy_input import PolicyInput
from agents.rollout import EpisodeResults, play
from benchmarks.baselines.complexity import count_macs
from restore_env import Task
from restore_env.metrics import Metric
from restore_env.policy import Policy
from restore_env.sampling import EpisodeStart
from restore_env.toolbox import FunctionTool, Toolbox
from tools_zoo.training.trainer import digest


@dataclass(frozen=True)
class Method:
    """A policy with its tools.

    A baseline is a toolbox of one tool that is always chosen, the input a policy that stops at once. So the same code
    runs, measures and counts all.
    """

    name: str
    title: str
    """In tables."""
    policy: Policy
    toolbox: Toolbox
    parameters: int
    """Of all that has to be loaded: every tool and the policy."""
    training: str = ""
    """How far a baseline was trained."""
    undertrained: bool = False
    """Or not known to be trained until it no longer improves."""
    sees_target: bool = False

    @property
    def agent(self) -> Policy:
        """The policy without what makes it upscale (:mod:`benchmarks.compare.upscaling`)."""
        agent: Policy = getattr(self.policy, "policy", self.policy)
        return agent

    @cached_property
    def policy_gmacs(self) -> float:
        """10^9 multiply-accumulates of the policy for one patch."""
        agent = self.agent
        if not isinstance(agent, RecurrentAgent):
            return 0.0
        side, actions = agent.patch_size, len(agent.tools) + 1
        observation: dict[str, Any] = {
            "image": np.zeros((1, side, side, 3), np.uint8),
            "last_action": np.array([actions]),
            "action_mask": np.ones((1, actions), np.int8),
        }
        return count_macs(agent, lambda twin: twin.scores(observation)) / 1e9

    def fingerprint(self) -> str:
        """A hash of everything that determines the method's outputs."""
        chain = repr(getattr(self.policy, "chain", ""))
        parts = [self.name, *map(_mark, self.toolbox), _mark(self.agent), chain]
        return hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]

    def play(
        self, task: Task, starts: Sequence[EpisodeStart], metrics: Mapping[str, Metric] = MappingProxyType({})
    ) -> EpisodeResults:
        """Run one episode from each start; computation includes the policy's calls."""
        own = replace(task, toolbox=self.toolbox, dtype=PolicyInput.of(self.policy).observe)
        played = play(self.policy, own, starts, metrics=metrics)
        calls = np.array([len(chain) for chain in played.actions])
        return replace(played, gmacs=played.gmacs + calls * self.policy_gmacs)


def _mark(part: object) -> str:
    module = part.function if isinstance(part, FunctionTool) else part
    return digest(module) if isinstance(module, nn.Module) else str(getattr(part, "name", type(part).__name__))
