"""What trained agents are compared with: policies that need no training, oracles, and an agent that imitates one."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from agents.imitation.imitation import ImitationTraining, train_imitation
from agents.policies.heuristics import FixedChain, RandomPolicy
from agents.policies.oracles import ExhaustiveOracle, GreedyOracle
from benchmarks.agents.algorithms import FLAT
from benchmarks.agents.training import Run, Setting, evaluated
from restore_env.levels.optima import optima
from restore_env.policy import Policy

RECIPE: dict[str, Any] = {"encoder": "compact", "steps": 3000, "batch_size": 64}
"""Of the agent that imitates."""
RANDOM_RUNS = 20


def imitate(setting: Setting, seed: int) -> Run:
    """Train an agent on the gains of all tools in the training set, and evaluate it."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        settings = ImitationTraining(out=Path(folder), levels=(setting.train,), seed=seed, **RECIPE)
        agent, _ = train_imitation(settings)
    return evaluated(setting, agent, {}, time.perf_counter() - began)


def constant_chain(setting: Setting) -> FixedChain:
    """The chain with the highest mean return on the training set."""
    levels = setting.training_set
    return FixedChain(optima(levels, setting.depth).constant_chain, len(levels.manifest.tools))


UNTRAINED: Mapping[str, tuple[Callable[[Setting, int], Policy], int]] = MappingProxyType(
    {
        "random": (lambda _, seed: RandomPolicy(seed), RANDOM_RUNS),
        "best constant chain": (lambda setting, _: constant_chain(setting), 1),
        "greedy oracle": (lambda *_: GreedyOracle(), 1),
        "best chain": (lambda setting, _: ExhaustiveOracle(setting.depth), 1),
    }
)
"""Policies that need no training: how each is made for a setting and a seed, and how many seeds are played."""


def untrained(setting: Setting, name: str) -> list[Run]:
    """Play one of :data:`UNTRAINED` with each of its seeds."""
    make, seeds = UNTRAINED[name]
    return [evaluated(setting, make(setting, seed), FLAT) for seed in range(seeds)]
