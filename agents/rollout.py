"""Run episodes with a policy and measure the results, for validation during training and for benchmarks."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from restore_env.episodes.batch import EpisodeBatch
from restore_env.levels.starts import LevelStarts
from restore_env.metrics import Metric
from restore_env.policy import Policy, PrivilegedPolicy
from restore_env.resolve import task_sampler
from restore_env.sampling import EpisodeStart
from restore_env.task import Task

BATCH = 64
"""Episodes in a batch."""
EPISODES = 500
"""Episodes of an evaluation without a level set."""


@dataclass(frozen=True)
class EpisodeResults:
    """Results of a number of episodes, an entry each."""

    initial_psnr: npt.NDArray[np.float64]
    """dB, at the start."""
    psnr: npt.NDArray[np.float64]
    """dB, at the end."""
    returns: npt.NDArray[np.float64]
    """Sums of rewards."""
    gmacs: npt.NDArray[np.float64]
    """Computation of the chosen tools."""
    actions: tuple[tuple[int, ...], ...]
    """The chosen actions, with ``stop`` where it was chosen."""
    seconds: float = 0.0
    """Wall time: choosing, tools and measuring PSNR, without sampling the starts and other metrics."""
    images: tuple[str, ...] = ()
    """The photograph that each episode's patch was cut from."""
    scores: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    """Other metrics of the final images, by name."""

    @property
    def gain(self) -> float:
        """Mean PSNR gain, dB."""
        return float((self.psnr - self.initial_psnr).mean())

    @property
    def value(self) -> float:
        """Mean return, in the reward's unit."""
        return float(self.returns.mean())


def draw_starts(task: Task, count: int | None, seed: int) -> list[EpisodeStart]:
    """Draw the starts of a test set: the same for the same task and seed.

    Args:
        task: with a level set, no level is drawn twice.
        count: number of starts; None: every level once, or :data:`EPISODES`.
        seed: of the draws.

    Raises:
        ValueError: less than one start, or more than the level set has levels.
    """
    if count is not None and count < 1:
        raise ValueError(f"there must be one episode or more, got {count}")
    sampler, rng = task_sampler(task), np.random.default_rng(seed)
    if isinstance(sampler, LevelStarts):
        seeds: npt.NDArray[np.int64] = sampler.levels.arrays["seed"]
        if count is not None and count > len(seeds):
            raise ValueError(f"the level set has {len(seeds)} levels, fewer than {count} episodes")
        seeds = seeds if count is None else seeds[np.sort(rng.choice(len(seeds), count, replace=False))]
    else:
        seeds = rng.integers(2**53, size=EPISODES if count is None else count)
    return list(sampler.starts(seeds.tolist()))


def play(
    policy: Policy,
    task: Task,
    starts: Sequence[EpisodeStart],
    *,
    deterministic: bool = True,
    metrics: Mapping[str, Metric] = MappingProxyType({}),
) -> EpisodeResults:
    """Play one episode from each start.

    Args:
        policy: chooses the actions, given the task's observations; a :class:`PrivilegedPolicy` is bound to the
            episodes first, and a ``predict`` with the argument ``action_masks`` gets them (sb3-contrib's MaskablePPO).
        task: toolbox, limits and reward.
        starts: as :func:`draw_starts` gives them.
        deterministic: passed on to the policy.
        metrics: other metrics to compute of the final images, clipped to [0, 1].
    """
    batches = (starts[first : first + BATCH] for first in range(0, len(starts), BATCH))
    return concatenate([_play_batch(policy, task, batch, deterministic, metrics) for batch in batches])


def concatenate(parts: Sequence[EpisodeResults]) -> EpisodeResults:
    """Concatenate the results of several batches."""
    names = ("initial_psnr", "psnr", "returns", "gmacs")
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return EpisodeResults(
        **columns,
        actions=tuple(chain for part in parts for chain in part.actions),
        seconds=sum(part.seconds for part in parts),
        images=tuple(image for part in parts for image in part.images),
        scores={name: np.concatenate([part.scores[name] for part in parts]) for name in parts[0].scores},
    )


def _play_batch(
    policy: Policy,
    task: Task,
    starts: Sequence[EpisodeStart],
    deterministic: bool,
    metrics: Mapping[str, Metric],
) -> EpisodeResults:
    began = time.perf_counter()
    episodes = EpisodeBatch(task, len(starts))
    slots = np.arange(len(starts))
    episodes.reset(slots, starts)
    if isinstance(policy, PrivilegedPolicy):
        policy.bind(episodes)
    returns = np.zeros(len(starts))
    state: Any = None
    episode_start = np.ones(len(starts), dtype=np.bool_)
    masked = "action_masks" in signature(policy.predict).parameters
    while not episodes.over.all():
        masks = {"action_masks": episodes.action_mask().astype(bool)} if masked else {}
        actions, state = policy.predict(episodes.observations(slots), state, episode_start, deterministic, **masks)
        unfinished = np.flatnonzero(~episodes.over)
        returns[unfinished] += episodes.step(unfinished, np.asarray(actions)[unfinished])
        episode_start = np.zeros(len(starts), dtype=np.bool_)
    traces = episodes.psnr_trace
    return EpisodeResults(
        initial_psnr=np.array([trace[0] for trace in traces]),
        psnr=np.array([trace[-1] for trace in traces]),
        returns=returns,
        gmacs=episodes.gmacs,
        actions=tuple(tuple(actions) for actions in episodes.actions),
        seconds=time.perf_counter() - began,
        images=tuple(start.image for start in starts),
        scores={name: episodes.quality(slots, metric) for name, metric in metrics.items()},
    )
