"""Training of an algorithm on a level set, evaluated along the way on another."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import wraps
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from agents.evaluation import Evaluation, evaluate
from agents.sb3_env import RestoreVecEnv
from benchmarks.agents.algorithms import Algorithm
from restore_env.episodes.observation import observation_keys
from restore_env.episodes.spectrum import COMPACT_SIZE, decoded, transposed_places
from restore_env.levels.store import LevelSet, open_levels
from restore_env.policy import Policy

Compact: TypeAlias = "npt.NDArray[np.float32]"
"""Compact observations, ``(..., 257)``."""
FITTED_LEVELS = 1000
"""Levels by whose observations others are standardized."""
SPECTRUM = "spectrum"


@dataclass(frozen=True)
class Setting:
    """A pair of level sets, and how much is trained."""

    train: str
    test: str
    steps: int
    """Environment steps of each training."""
    points: int = 20
    """Evaluations along each training."""

    @property
    def training_set(self) -> LevelSet:
        """The level set to train on."""
        return open_levels(self.train)

    @property
    def both(self) -> tuple[LevelSet, LevelSet]:
        """The level set to train on, and the one to evaluate on."""
        return self.training_set, open_levels(self.test)

    @property
    def depth(self) -> int:
        """Steps of an episode."""
        return self.training_set.manifest.depth

    def evaluate(self, policy: Policy, levels: str, observed: Any) -> Evaluation:
        """Play every level of a set once."""
        return evaluate(policy, levels=levels, max_steps=self.depth, **observed)


@dataclass(frozen=True)
class Run:
    """What came of one training, or of one policy that needs none."""

    mean: float
    """Return on the test set."""
    score: float
    """0: the test set's best constant chain; 1: the best chain of each level."""
    train_score: float
    """On the training set."""
    worse: float
    """Share of episodes that the policy made worse."""
    steps: float
    """Mean number of actions in an episode."""
    gmacs: float
    seconds: float
    """Wall time of the training, without evaluations."""
    env_steps: int = 0
    """Of the training."""
    curve: tuple[tuple[int, float], ...] = ()
    """Environment steps, and the score on the test set after them."""


def evaluated(setting: Setting, policy: Policy, observed: Any, seconds: float = 0.0) -> Run:
    """Evaluate a policy on both level sets."""
    seen, unseen = (setting.evaluate(policy, levels, observed) for levels in (setting.train, setting.test))
    assert seen.score is not None
    assert unseen.score is not None
    return Run(
        mean=unseen.mean.mean,
        score=unseen.score.mean,
        train_score=seen.score.mean,
        worse=unseen.worse,
        steps=unseen.steps,
        gmacs=unseen.gmacs,
        seconds=seconds,
    )


class Standardizer:
    """Standardizes the compact observation by its mean and deviation over a level set.

    What else is observed stays as it is. In a flat observation the compact one comes first.

    Args:
        levels: whose observations it is fitted to.
        observed: what is observed.
    """

    def __init__(self, levels: LevelSet, observed: Any) -> None:
        self.used = SPECTRUM in observation_keys(observed["observation"])
        every = max(1, len(levels) // FITTED_LEVELS)
        numbers = decoded(levels.arrays[SPECTRUM][::every, : max(1, levels.tree.inner)].reshape(-1, COMPACT_SIZE))
        self.mean, self.deviation = numbers.mean(0), numbers.std(0) + 1e-3

    def __call__(self, observation: Any) -> Any:
        """Standardize observations ``(..., D)`` or a Dict of them."""
        return self.change(observation, self.standardized)

    def standardized(self, numbers: Compact) -> Compact:
        """Standardize compact observations."""
        return np.asarray((numbers - self.mean) / self.deviation)

    def change(self, observation: Any, changed: Callable[[Compact], Compact]) -> Any:
        """Change the compact numbers of observations ``(..., D)`` or of a Dict of them."""
        if not self.used:
            return observation
        if isinstance(observation, dict):
            return {**observation, SPECTRUM: changed(observation[SPECTRUM])}
        compact = changed(observation[..., :COMPACT_SIZE])
        return np.concatenate([compact, observation[..., COMPACT_SIZE:]], axis=-1)

    def policy(self, model: Any) -> Policy:
        """A model that was trained on standardized observations, as a policy for others."""

        @wraps(model.predict)
        def predict(observation: Any, *rest: Any, **named: Any) -> Any:
            return model.predict(self(observation), *rest, **named)

        return SimpleNamespace(predict=predict)


class TrainingEnv(VecEnvWrapper):
    """Standardizes observations, adds noise to them, and raises rewards to a floor.

    With ``transposed`` in half of the episodes, drawn at random, the compact observation is that of the transposed
    patch, which tools restore as well.

    Args:
        venv: the environments.
        standardizer: of their observations.
        algorithm: says how much noise, the least reward, and whether patches are transposed.
        seed: of what is drawn.
    """

    def __init__(self, venv: VecEnv, standardizer: Standardizer, algorithm: Algorithm, seed: int) -> None:
        super().__init__(venv)
        self._standardizer, self._algorithm = standardizer, algorithm
        self._rng = np.random.default_rng(seed)
        self._transposed = np.zeros(venv.num_envs, dtype=np.bool_)

    def reset(self) -> VecEnvObs:
        """Start an episode in every environment."""
        self._draw(np.ones(self.num_envs, dtype=np.bool_))
        observations: VecEnvObs = self._observed(self.venv.reset(), self._transposed)
        return observations

    def step_wait(self) -> VecEnvStepReturn:
        """Step; ``terminal_observation`` is standardized, too."""
        observations, rewards, dones, infos = self.venv.step_wait()
        for slot, info in enumerate(infos):
            if "terminal_observation" in info:
                info["terminal_observation"] = self._observed(info["terminal_observation"], self._transposed[slot])
        self._draw(dones)
        observed = self._observed(observations, self._transposed)
        return observed, np.maximum(rewards, self._algorithm.floor), dones, infos

    def _draw(self, slots: npt.NDArray[np.bool_]) -> None:
        """Draw for which new episodes patches are transposed."""
        drawn = self._rng.random(self.num_envs) < 0.5
        self._transposed = np.where(slots, drawn & self._algorithm.transposed, self._transposed)

    def _observed(self, observation: Any, transposed: Any) -> Any:
        def changed(numbers: Compact) -> Compact:
            turned = np.where(np.asarray(transposed)[..., None], numbers[..., transposed_places()], numbers)
            standardized = self._standardizer.standardized(turned)
            if not self._algorithm.noise:
                return standardized
            drawn = self._rng.standard_normal(standardized.shape, dtype=np.float32)
            return np.asarray(standardized + np.float32(self._algorithm.noise) * drawn, np.float32)

        return self._standardizer.change(observation, changed)


class _Curve(BaseCallback):
    """Evaluates a model after equal parts of its training; ``seconds`` is what that took."""

    def __init__(self, score: Callable[[], float], steps: int, points: int) -> None:
        super().__init__()
        self.points: list[tuple[int, float]] = []
        self.seconds = 0.0
        self._score, self._due = score, [round(steps * (part + 1) / points) for part in range(points - 1)]

    def _on_step(self) -> bool:
        if self._due and self.num_timesteps >= self._due[0]:
            began = time.perf_counter()
            self._due = [due for due in self._due if due > self.num_timesteps]
            self.points.append((self.num_timesteps, self._score()))
            self.seconds += time.perf_counter() - began
        return True


def reinforce(algorithm: Algorithm, setting: Setting, seed: int) -> Run:
    """Train an algorithm from random weights, without an oracle, and evaluate it at the end and along the way."""
    steps = max(1, round(setting.steps * algorithm.share))
    standardizer = Standardizer(setting.training_set, algorithm.observed)
    levels = RestoreVecEnv(algorithm.envs, levels=setting.train, max_steps=setting.depth, **algorithm.observed)
    env = TrainingEnv(levels, standardizer, algorithm, seed)
    rate = algorithm.arguments["learning_rate"]
    arguments = {**algorithm.arguments, "learning_rate": lambda left: rate * left, "seed": seed, "device": "cpu"}
    model = algorithm.model(algorithm.policy, env, policy_kwargs=dict(algorithm.network), **arguments)
    policy = standardizer.policy(model)

    def score() -> float:
        result = setting.evaluate(policy, setting.test, algorithm.observed).score
        assert result is not None
        return result.mean

    curve, began = _Curve(score, steps, setting.points), time.perf_counter()
    model.learn(steps, callback=curve)
    seconds = time.perf_counter() - began - curve.seconds
    run = evaluated(setting, policy, algorithm.observed, seconds)
    taken = model.num_timesteps
    before = [point for point in curve.points if point[0] < taken]
    return replace(run, env_steps=taken, curve=(*before, (taken, run.score)))


def digest(setting: Setting, algorithm: Any) -> str:
    """A hash of all that the runs of an algorithm depend on, but for the code and the seed."""
    known = hashlib.sha256(f"{algorithm!r} {setting.steps} {setting.points}".encode())
    for levels in setting.both:
        known.update(json.dumps(asdict(levels.manifest)).encode())
        known.update(np.ascontiguousarray(levels.arrays["psnr"]).tobytes())
    return known.hexdigest()[:12]
