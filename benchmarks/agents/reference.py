"""What trained agents are compared with: policies that need no training, oracles, and an agent that imitates one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from agents.policies.heuristics import FixedChain, RandomPolicy
from agents.policies.oracles import ExhaustiveOracle, GreedyOracle
from agents.rollout import draw_starts
from benchmarks.agents.algorithms import FLAT
from benchmarks.agents.training import Run, Setting, evaluated
from restore_env import Task
from restore_env.episodes.batch import EpisodeBatch
from restore_env.levels.optima import optima
from restore_env.policy import Policy

WIDTH, DROPOUT, EPOCHS, BATCH = 256, 0.3, 40, 256
"""Of the multilayer perceptron that imitates."""
WORST = -1.0
"""How far below the best action, in the reward's unit, an action can be in training: all worse ones are equally bad."""
RECIPE = (WIDTH, DROPOUT, EPOCHS, BATCH, WORST)
RANDOM_RUNS = 20


class RewardPredictor(nn.Module):
    """Predicts from the compact observation how far each action's reward is below the best one, and takes the highest.

    Args:
        inputs: observations ``(N, D)``, by which it standardizes.
        n_actions: tools and ``stop``.
    """

    def __init__(self, inputs: torch.Tensor, n_actions: int) -> None:
        super().__init__()
        self.mean, self.deviation = inputs.mean(0), inputs.std(0) + 1e-3
        parts: list[nn.Module] = []
        for before, after in pairwise((inputs.shape[1], WIDTH, WIDTH)):
            parts += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(DROPOUT)]
        self.layers = nn.Sequential(*parts, nn.Linear(WIDTH, n_actions))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Rewards minus the best one, ``(N, n_actions)``."""
        predicted: torch.Tensor = self.layers((inputs - self.mean) / self.deviation)
        return predicted

    @torch.inference_mode()
    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[npt.NDArray[np.int64], None]:
        """Choose an action for each observation, ``(N, D)``."""
        return self(torch.from_numpy(observation)).argmax(dim=1).numpy(), None


def fitted(setting: Setting, seed: int) -> RewardPredictor:
    """Train a predictor on the rewards of all actions after every chain of the training set."""
    inputs, rewards = (torch.from_numpy(values).flatten(0, 1) for values in every_reward(setting))
    targets = (rewards - rewards.max(dim=1, keepdim=True).values).clamp_(min=WORST)
    torch.manual_seed(seed)
    network = RewardPredictor(inputs, rewards.shape[1])
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.1)
    batches = -(-len(inputs) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=EPOCHS * batches)
    for _ in range(EPOCHS):
        order = torch.randperm(len(inputs))
        for first in range(0, len(inputs), BATCH):
            rows = order[first : first + BATCH]
            optimizer.zero_grad()
            F.mse_loss(network(inputs[rows]), targets[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return network.eval()


def every_reward(setting: Setting) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Observations ``(chains, levels, D)`` after every chain that can be extended, and each action's reward there."""
    task = Task(levels=setting.train, max_steps=setting.depth, **FLAT)
    starts = draw_starts(task, None, 0)
    episodes, slots = EpisodeBatch(task, len(starts)), np.arange(len(starts))
    tree = setting.training_set.tree
    observations, rewards = [], []
    for chain in tree.chains[: tree.inner]:
        episodes.reset(slots, starts)
        for tool in chain:
            episodes.step(slots, np.full(len(slots), tool))
        observations.append(episodes.observations(slots))
        rewards.append(episodes.one_step_rewards(slots).astype(np.float32))
    return np.stack(observations), np.stack(rewards)


def imitate(setting: Setting, seed: int) -> Run:
    """Train a policy on the rewards of all actions, given by an oracle, and evaluate it."""
    began = time.perf_counter()
    policy = fitted(setting, seed)
    return evaluated(setting, policy, FLAT, time.perf_counter() - began)


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
