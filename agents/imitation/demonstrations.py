"""Demonstrations: episodes with the reward of every action at every step, for imitation learning.

A greedy oracle with random exploration plays them. A trained agent plays half of them itself, so that states after its
own mistakes are included, as in DAgger (Ross et al., AISTATS 2011).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from agents.agent import RecurrentAgent
from agents.policies.oracles import GreedyOracle
from restore_env.distortions.protocol import SINGLE
from restore_env.episodes.batch import EpisodeBatch
from restore_env.resolve import task_sampler
from restore_env.sampling import EpisodeStart
from restore_env.task import Task

EPISODES = 32
"""Episodes in a batch."""
MOST_EPISODES = 40_000
"""Most demonstrations in memory: 1.4 GB."""
EXPLORE = 0.35
"""Probability of a random tool instead of the best one."""


@dataclass(frozen=True)
class Demonstrations:
    """Episodes of one length with the reward of every action at every step."""

    images: npt.NDArray[np.uint8]
    """``(E, T, P, P, 3)``."""
    last_actions: npt.NDArray[np.int64]
    """``(E, T)``."""
    masks: npt.NDArray[np.bool_]
    """``(E, T, A)``."""
    rewards: npt.NDArray[np.float32]
    """``(E, T, A)``."""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def reward_std(self) -> float:
        """Standard deviation of the rewards of the allowed tools, averaged over the steps."""
        allowed = self.masks[..., :-1]
        count = np.maximum(allowed.sum(-1, keepdims=True), 1)
        rewards = np.where(allowed, self.rewards[..., :-1], 0)
        deviations = np.where(allowed, rewards - rewards.sum(-1, keepdims=True) / count, 0)
        return float(np.sqrt((deviations**2).sum(-1) / count[..., 0]).mean())


def single_distortion_tasks(task: Task, share: float) -> list[tuple[Task, float]]:
    """Extra task of single distortions with its share, so that an agent learns short chains; empty for a share of 0."""
    return [(replace(task, severity=SINGLE, distortion=None), share)] if share else []


def check_shares(extra_tasks: Sequence[tuple[Task, float]]) -> None:
    """Raise ``ValueError`` if the shares of the extra tasks exceed 1 together."""
    total = sum(share for _, share in extra_tasks)
    if total > 1:
        raise ValueError(f"the shares of the extra tasks must not exceed 1 together, got {total:g}")


def demonstrate(
    task: Task,
    seconds: float,
    seed: int,
    report: Callable[[float], None] = lambda _: None,
    agent: RecurrentAgent | None = None,
    extra_tasks: Sequence[tuple[Task, float]] = (),
) -> Demonstrations:
    """Collect demonstrations for so many seconds: at least one batch, at most :data:`MOST_EPISODES`.

    Args:
        task: of the episodes; its observations must be uint8.
        seconds: how long.
        seed: of starts and exploration.
        report: called with the elapsed share of the time.
        agent: plays half of the episodes; the oracle plays the others. None: the oracle plays all.
        extra_tasks: other tasks with the same toolbox and patch size, each with its share of the batches; the rest are
            ``task``'s.
    """
    if task.dtype != "uint8":
        raise ValueError(f"demonstrations are stored as uint8, the task observes {task.dtype}")
    rng = np.random.default_rng(seed)
    episodes = EpisodeBatch(task, EPISODES)
    draw = start_sampler(task, extra_tasks, rng)
    oracle = GreedyOracle(explore=EXPLORE, stops=False, rng=rng)
    slots = np.arange(EPISODES)
    batches: list[list[npt.NDArray[Any]]] = []
    began = time.monotonic()
    while not batches or (time.monotonic() - began < seconds and len(batches) * EPISODES < MOST_EPISODES):
        episodes.reset(slots, draw(EPISODES))
        steps, state = [], None
        for _ in range(task.max_steps):
            observation = episodes.observe(slots)
            actions = oracle.choose(episodes, slots)
            mask = observation["action_mask"].astype(bool)
            steps.append((observation["image"], observation["last_action"], mask, oracle.rewards.astype(np.float32)))
            if agent is not None:
                scores, state = agent.scores(observation, state)
                follow = (slots % 2 == 0) & (rng.random(EPISODES) >= EXPLORE)
                actions = np.where(follow, scores[:, :-1].argmax(axis=1), actions)
            episodes.step(slots, actions)
        batches.append([np.stack(part, axis=1) for part in zip(*steps, strict=True)])
        report(min(1.0, (time.monotonic() - began) / seconds))
    return Demonstrations(*(np.concatenate(part) for part in zip(*batches, strict=True)))


def start_sampler(
    task: Task, extra_tasks: Sequence[tuple[Task, float]], rng: np.random.Generator
) -> Callable[[int], list[EpisodeStart]]:
    """Return a function that samples batches of starts, each from one task, drawn by the shares."""
    check_shares(extra_tasks)
    samplers = [task_sampler(one) for one in (task, *(other for other, _ in extra_tasks))]
    shares = [1 - sum(share for _, share in extra_tasks), *(share for _, share in extra_tasks)]

    def draw(count: int) -> list[EpisodeStart]:
        sampler = samplers[rng.choice(len(samplers), p=shares) if extra_tasks else 0]
        return list(sampler.starts(rng.integers(2**53, size=count).tolist()))

    return draw
