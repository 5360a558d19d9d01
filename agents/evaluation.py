"""Evaluation of any policy on an environment: the same starts for all, intervals, a score between exact bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import wraps
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from agents.agent import RecurrentAgent, check_tools, with_tools
from agents.intervals import Estimate, Values, estimate, ratio
from agents.policy_input import PolicyInput
from agents.rollout import EpisodeResults, draw_starts, play
from restore_env import ENV_ID, IDS
from restore_env.episodes.observation import observation_keys
from restore_env.levels.optima import optima
from restore_env.policy import Policy
from restore_env.resolve import complete_task, task_levels, task_toolbox
from restore_env.sampling import EpisodeStart
from restore_env.task import Task

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Evaluation:
    """How a policy does on an environment. ``str()`` gives it in two lines."""

    env_id: str
    results: EpisodeResults
    """The episodes, an entry per start."""
    seeds: npt.NDArray[np.int64]
    """What each start was drawn from (``info["episode_seed"]``)."""
    mean: Estimate
    """Return, with a 95 % interval over starts; those of one photograph are resampled together."""
    score: Estimate | None
    """(return - constant) / (optimum - constant) of a level set: 0 for its best constant chain, 1 for the best chain of
    each level; of the mean returns. None without a level set."""
    worse: float
    """Share of episodes whose final image is worse than the first one, by the reward's metric."""
    unit: str
    """Of returns: "dB", or nothing."""

    @property
    def returns(self) -> Values:
        """Return of each start: ``(N,)``."""
        return self.results.returns

    @property
    def steps(self) -> float:
        """Mean number of actions, ``stop`` included."""
        return float(np.mean([len(actions) for actions in self.results.actions]))

    @property
    def gmacs(self) -> float:
        """Mean computation of the chosen tools, GMAC."""
        return float(self.results.gmacs.mean())

    def difference(self, other: Evaluation) -> Estimate:
        """How much higher the return is than another policy's on the same starts, start by start.

        The interval is far narrower than those of the returns, which mostly show how different the starts are.

        Raises:
            ValueError: the other's starts are not the same.
        """
        mine, others = ((each.seeds, each.results.images, each.results.initial_psnr) for each in (self, other))
        equal = np.array_equal(mine[0], others[0]) and mine[1] == others[1]  # another task has others of the same seeds
        if not (equal and np.allclose(mine[2], others[2], atol=1e-3)):
            raise ValueError("only evaluations on the same starts can be compared: use the same environment and seed")
        return estimate((self.returns - other.returns, self.results.images))

    def __str__(self) -> str:
        score = "" if self.score is None else f", score {self.score}"
        return (
            f"{self.env_id}, {len(self.returns)} starts: return {self.mean}{self.unit and ' ' + self.unit}{score}\n"
            f"{100 * self.worse:.1f} % made worse, {self.steps:.2f} steps, {self.gmacs:.4f} GMAC"
        )


def evaluate(
    policy: Policy,
    env_id: str = ENV_ID,
    *,
    episodes: int | None = None,
    seed: int = 0,
    deterministic: bool = True,
    **make_arguments: Any,
) -> Evaluation:
    """Play one episode from each of a fixed set of starts.

    Args:
        policy: anything with ``predict``: a policy of this project (an agent of more tools chooses among those of the
            environment; oracles are bound to the episodes), or a model of
            Stable-Baselines3 or sb3-contrib, recurrent, masked or not; one whose environment is wrapped in
            VecNormalize is given observations as that normalizes them (load it with that environment).
        env_id: of an environment that :mod:`restore_env` registers.
        episodes: number of starts; None: every level of a level set once, or 500.
        seed: of the starts: the same seed gives every policy the same ones.
        deterministic: passed on to the policy.
        make_arguments: arguments of ``gym.make`` beyond those that the environment is registered with.

    Raises:
        PolicyError: the policy was trained with other tools.
        ValueError: an environment of another kind or with other spaces than the policy's, values that it does not
            take, or a number of episodes that cannot be played.
        TypeError: an argument that a :class:`Task` does not have.
    """
    task = _task(env_id, make_arguments)
    toolbox = task_toolbox(task)
    if isinstance(policy, RecurrentAgent) and set(toolbox.names) < set(policy.tools):
        policy = with_tools(policy, toolbox.names)
    _check_fit(policy, task)
    starts = draw_starts(task, episodes, seed)
    results = play(_normalized(policy), _observed_by(policy, task), starts, deterministic=deterministic)
    return Evaluation(
        env_id=env_id,
        results=results,
        seeds=np.array([start.seed for start in starts], dtype=np.int64),
        mean=estimate((results.returns, results.images)),
        score=None if task.levels is None else _score(task, starts, results),
        worse=float(np.mean(results.returns + task.cost_weight * results.gmacs < -_ROUNDING)),
        unit="dB" if task.reward == "psnr" else "",
    )


def _task(env_id: str, make_arguments: dict[str, Any]) -> Task:
    """The task of a registered environment."""
    spec = gym.registry.get(env_id.rpartition(":")[2]) if isinstance(env_id, str) else None
    if spec is None or spec.entry_point != gym.registry[ENV_ID].entry_point:
        raise ValueError(f"{env_id!r} is no environment of this package: choose from {', '.join(IDS)}")
    return complete_task(Task(**{**spec.kwargs, **make_arguments}))


def _check_fit(policy: Any, task: Task) -> None:
    """Raise an error if a policy has other actions, or another kind of observation, than the task."""
    toolbox = task_toolbox(task)
    check_tools(policy, toolbox.names)
    actions, observed = (getattr(policy, f"{name}_space", None) for name in ("action", "observation"))
    if isinstance(actions, gym.spaces.Discrete) and actions.n != len(toolbox) + 1:
        raise ValueError(f"the policy has {actions.n} actions, the environment {len(toolbox) + 1}")
    if isinstance(observed, gym.spaces.Space) and isinstance(observed, gym.spaces.Dict) == task.flatten:
        raise ValueError(
            f"the policy was trained with flatten={not task.flatten}: pass 'observation' and 'flatten' as in training"
        )


def _observed_by(policy: Policy, task: Task) -> Task:
    """The task with the observation that a policy needs."""
    keys: tuple[str, ...] = getattr(policy, "observation_keys", ())
    changes: dict[str, Any] = {}
    if keys and (task.flatten or set(keys) != set(observation_keys(task.observation))):
        changes |= {"observation": keys, "flatten": False}
    if "image" in keys and PolicyInput.of(policy).observe != task.dtype:
        changes["dtype"] = PolicyInput.of(policy).observe
    return replace(task, **changes) if changes else task


def _normalized(policy: Any) -> Policy:
    """The policy on observations as a model's VecNormalize, if it has one, normalizes them."""
    env = getattr(policy, "get_vec_normalize_env", lambda: None)()
    if env is None:
        normalized: Policy = policy
        return normalized

    @wraps(policy.predict)
    def predict(observation: Any, *rest: Any, **named: Any) -> Any:
        return policy.predict(env.normalize_obs(observation), *rest, **named)

    return SimpleNamespace(predict=predict)


def _score(task: Task, starts: list[EpisodeStart], results: EpisodeResults) -> Estimate:
    best = optima(task_levels(task), task.max_steps, task.cost_weight, task.stop_if_worse)
    levels = [start.level for start in starts]
    return score_between(results.returns, best.constant_return[levels], best.best_return[levels], results.images)


def score_between(returns: Values, low: Values, high: Values, images: Sequence[str]) -> Estimate:
    """Returns as a score: 0 for the mean of ``low``, 1 for that of ``high``; NaN where these are equal.

    Args:
        returns: of a policy, ``(N,)``.
        low: of the best constant chain on the same starts, ``(N,)``.
        high: of the best chain of each start, ``(N,)``.
        images: the photograph of each start.
    """
    if high.sum() - low.sum() < _ROUNDING:
        return Estimate(float("nan"), float("nan"), float("nan"))
    return ratio(returns - low, high - low, images)
