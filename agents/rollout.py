"""Playing episodes with a policy, and what they gained: for validation during training and for benchmarks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from restore_env.episodes import Task
from restore_env.policy import Attending, Policy
from restore_env.starts import EpisodeStart

BATCH = 64
"""Episodes that are played side by side."""


@dataclass(frozen=True)
class Played:
    """What a number of episodes came to, an entry each."""

    initial_psnr: npt.NDArray[np.float64]
    """dB, as the episodes began."""
    psnr: npt.NDArray[np.float64]
    """dB, as they ended."""
    returns: npt.NDArray[np.float64]
    """Sums of rewards."""
    gmacs: npt.NDArray[np.float64]
    """Computation of the chosen tools."""
    actions: tuple[tuple[int, ...], ...]
    """What was chosen, ``stop`` included where it was."""
    seconds: float = 0.0
    """Wall time: choosing, tools and measuring, without drawing the starts."""

    @property
    def gain(self) -> float:
        """Mean PSNR gain, dB."""
        return float((self.psnr - self.initial_psnr).mean())

    @property
    def value(self) -> float:
        """Mean return, in the reward's unit."""
        return float(self.returns.mean())


def draw_starts(task: Task, count: int, seed: int) -> list[EpisodeStart]:
    """Draw the starts of a test set: the same for the same task and seed."""
    seeds = np.random.default_rng(seed).integers(2**53, size=count)
    return list(task.sampler().starts(seeds.tolist()))


def play(policy: Policy, task: Task, starts: Sequence[EpisodeStart], *, deterministic: bool = True) -> Played:
    """Play one episode from each start.

    Args:
        policy: chooses the actions; it is shown the episodes if it has a method ``attend`` for that.
        task: toolbox, limits and reward.
        starts: as :func:`draw_starts` gives them.
        deterministic: passed on to the policy.
    """
    began = time.perf_counter()
    parts: list[tuple[npt.NDArray[np.float64], ...]] = []
    chains: list[tuple[int, ...]] = []
    for first in range(0, len(starts), BATCH):
        batch = starts[first : first + BATCH]
        episodes = task.episodes(len(batch))
        slots = np.arange(len(batch))
        episodes.begin(slots, batch)
        if isinstance(policy, Attending):
            policy.attend(episodes)
        returns = np.zeros(len(batch))
        state: Any = None
        episode_start = np.ones(len(batch), dtype=np.bool_)
        while not episodes.over.all():
            actions, state = policy.predict(episodes.observe(slots), state, episode_start, deterministic)
            going_on = np.flatnonzero(~episodes.over)
            returns[going_on] += episodes.step(going_on, np.asarray(actions)[going_on])
            episode_start = np.zeros(len(batch), dtype=np.bool_)
        traces = episodes.psnr_trace
        parts.append((np.array([t[0] for t in traces]), np.array([t[-1] for t in traces]), returns, episodes.gmacs))
        chains += [tuple(actions) for actions in episodes.actions]
    initial, final, returned, gmacs = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Played(initial, final, returned, gmacs, tuple(chains), time.perf_counter() - began)
