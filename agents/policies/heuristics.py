"""Heuristic policies: a constant chain and a random policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from restore_env.episodes.batch import EpisodeBatch
from restore_env.metrics import psnr
from restore_env.policy import takes_single
from restore_env.sampling import EpisodeStart
from restore_env.task import Task
from restore_env.toolbox import Toolbox


class FixedChain:
    """Chooses the same tools in the same order for every image, then ``stop``.

    Args:
        chain: actions of the chain.
        stop: the toolbox's stop action.
    """

    observation_keys = ("last_action",)

    def __init__(self, chain: Sequence[int], stop: int) -> None:
        self.chain, self.stop = tuple(chain), stop

    @takes_single
    def predict(
        self,
        observation: Any,
        state: npt.NDArray[np.int64] | None = None,
        episode_start: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = True,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The next action of the chain; the state counts the steps of each episode."""
        n = len(observation["last_action"])
        steps = np.zeros(n, dtype=np.int64) if state is None else state.copy()
        if episode_start is not None:
            steps[episode_start] = 0
        actions = np.array([*self.chain, self.stop])
        return actions[np.minimum(steps, len(self.chain))], steps + 1

    def named(self, toolbox: Toolbox) -> str:
        """The chain as text: its tools' names, or "stop"."""
        return " -> ".join(toolbox.name(action) for action in self.chain) or Toolbox.STOP_NAME


class RandomPolicy:
    """Chooses uniformly among the allowed actions.

    Args:
        seed: of the policy's own generator.
    """

    observation_keys = ("last_action", "action_mask")

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)

    @takes_single
    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[npt.NDArray[np.int64], None]:
        """Sample an action for each observation."""
        mask = np.asarray(observation["action_mask"], dtype=bool)
        return np.where(mask, self._rng.random(mask.shape), -1.0).argmax(axis=1), None


def best_constant_chain(task: Task, starts: Sequence[EpisodeStart]) -> FixedChain:
    """Find a constant chain for these starts: repeatedly the action with the highest mean reward, until none gains."""
    episodes, chain = EpisodeBatch(task, len(starts)), []
    episodes.reset(np.arange(len(starts)), starts)
    while len(running := np.flatnonzero(~episodes.over)):
        rewards = episodes.one_step_rewards(running).sum(axis=0)
        if rewards.max() <= 0:
            break
        chain.append(int(rewards.argmax()))
        episodes.step(running, np.full(len(running), chain[-1]))
    return FixedChain(chain, episodes.toolbox.stop)


def best_chains(
    toolbox: Toolbox, images: torch.Tensor, targets: torch.Tensor, depth: int = 3, beam: int = 36
) -> dict[int, list[tuple[int, ...]]]:
    """Find constant chains with the highest mean PSNR by beam search.

    Only the ``beam`` best chains of each length are extended; the search is exhaustive if there are no more.

    Args:
        toolbox: same-size tools.
        images: ``(N, 3, H, W)``.
        targets: the same shape.
        depth: longest chain.
        beam: chains that are kept of each length.

    Returns:
        For each length up to ``depth`` the ``beam`` best chains, the best one first.
    """
    best: dict[int, list[tuple[int, ...]]] = {}
    kept: list[tuple[float, tuple[int, ...], torch.Tensor]] = [(0.0, (), images)]
    for length in range(1, depth + 1):
        scored: list[tuple[float, tuple[int, ...], torch.Tensor]] = []
        for _, chain, image in kept:
            for action in range(len(toolbox)):
                result = toolbox.apply(image, np.full(len(image), action))
                scored.append((float(psnr(result, targets).mean()), (*chain, action), result))
            scored = sorted(scored, key=lambda entry: -entry[0])[:beam]
        kept, best[length] = scored, [chain for _, chain, _ in scored]
    return best
