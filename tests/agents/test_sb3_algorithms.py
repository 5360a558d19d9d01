"""Algorithms and wrappers of Stable-Baselines3 and sb3-contrib, with their stock policies, on the environment."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from sb3_contrib import QRDQN, MaskablePPO, RecurrentPPO
from sb3_contrib.common.maskable.evaluation import evaluate_policy as evaluate_masked
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecEnv,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
)

from agents.sb3_env import RestoreVecEnv
from restore_env.toolbox import Toolbox
from tests.support.toolkit import photographs, pixelwise_toolbox

ID = "restore_env:ImageRestore-v0"
N = 2
IMAGE = {"observation": ("image",), "flatten": True}
SPECTRUM = {"observation": "spectrum", "flatten": True}
DICT: dict[str, Any] = {}


def toolbox() -> Toolbox:
    return pixelwise_toolbox(super_resolver=True)


def task(**arguments: Any) -> dict[str, Any]:
    return {"images": photographs(2, 200, 200), "toolbox": toolbox, "patch_size": 40, "upscale": (1, 4), **arguments}


def from_id(**arguments: Any) -> VecEnv:
    return make_vec_env(ID, n_envs=N, seed=0, env_kwargs=task(**arguments))


def dummy(**arguments: Any) -> VecEnv:
    return VecMonitor(DummyVecEnv([functools.partial(gym.make, ID, **task(**arguments))] * N))


def processes(**arguments: Any) -> VecEnv:
    named = task(**arguments, toolbox="tests.support.toolkit:pixelwise_toolbox")
    return SubprocVecEnv([functools.partial(gym.make, ID, **named)] * N, start_method="fork")


def ours(**arguments: Any) -> VecEnv:
    return VecMonitor(RestoreVecEnv(N, **task(**arguments)))


ON_POLICY: dict[str, Any] = {"n_steps": 4}
BATCHES: dict[str, Any] = {**ON_POLICY, "batch_size": 4, "n_epochs": 1}
OFF_POLICY: dict[str, Any] = {"learning_starts": 4, "batch_size": 4, "buffer_size": 100, "train_freq": 2}
ALGORITHMS: dict[Any, dict[str, Any]] = {
    PPO: BATCHES,
    A2C: ON_POLICY,
    DQN: OFF_POLICY,
    QRDQN: OFF_POLICY,
    MaskablePPO: BATCHES,
    RecurrentPPO: BATCHES,
}
POLICIES = {"Mlp": SPECTRUM, "MultiInput": DICT, "Cnn": IMAGE}


def learn(algorithm: Any, kind: str, env: VecEnv) -> Any:
    policy = f"{kind}{'Lstm' if algorithm is RecurrentPPO else ''}Policy"
    model = algorithm(policy, env, seed=0, **ALGORITHMS[algorithm])
    before = [parameter.detach().clone() for parameter in model.policy.parameters()]
    model.learn(12)
    changed = [not torch.equal(*pair) for pair in zip(before, model.policy.parameters(), strict=True)]
    assert any(changed)
    return model


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: algorithm.__name__)
class TestAlgorithms:
    @pytest.mark.parametrize("kind", POLICIES)
    def test_learn_with_stock_policies(self, algorithm: Any, kind: str) -> None:
        env = ours(**POLICIES[kind])
        model = learn(algorithm, kind, env)
        observation = env.reset()
        actions, _ = model.predict(observation)
        assert actions.shape == (N,)

    @pytest.mark.parametrize("make", [from_id, dummy, processes])
    def test_learn_on_each_vector_environment(self, algorithm: Any, make: Callable[..., VecEnv]) -> None:
        env = make(**SPECTRUM)
        learn(algorithm, "Mlp", env)
        env.close()


def test_processes_start_by_the_default_method() -> None:
    named = task(**SPECTRUM, toolbox="classic")
    env = make_vec_env(ID, n_envs=N, env_kwargs=named, vec_env_cls=SubprocVecEnv)
    env.reset()
    _, rewards, _, infos = env.step(np.zeros(N, dtype=np.int64))
    assert np.isfinite(rewards).all()
    assert len(infos) == N
    env.close()


@pytest.mark.usefixtures("one_thread")
class TestWrappers:
    def test_an_image_is_stacked_transposed_and_monitored(self) -> None:
        env = VecMonitor(VecTransposeImage(VecFrameStack(RestoreVecEnv(N, **task(**IMAGE)), 2)))
        assert env.observation_space.shape == (6, 40, 40)
        model = PPO("CnnPolicy", env, **BATCHES).learn(8)
        mean, _ = evaluate_policy(model, env, n_eval_episodes=2)
        assert np.isfinite(mean)

    def test_a_dictionary_of_boxes_is_stacked(self) -> None:
        env = VecFrameStack(RestoreVecEnv(N, **task(observation=("image", "spectrum"))), 2)
        assert env.reset()["image"].shape == (N, 40, 40, 6)
        DQN("MultiInputPolicy", env, **OFF_POLICY).learn(8)

    def test_rows_are_stacked_and_normalized(self) -> None:
        env = VecNormalize(VecFrameStack(VecMonitor(RestoreVecEnv(N, **task(**SPECTRUM))), 3))
        A2C("MlpPolicy", env, **ON_POLICY).learn(32)
        observations = env.reset()
        assert isinstance(observations, np.ndarray)
        assert np.abs(observations).max() <= 10

    def test_spectra_in_a_dictionary_are_normalized(self) -> None:
        env = VecNormalize(RestoreVecEnv(N, **task(observation="both")), norm_obs_keys=["spectrum"])
        PPO("MultiInputPolicy", env, **BATCHES).learn(8)

    def test_evaluation_with_masks(self) -> None:
        model = MaskablePPO("MlpPolicy", ours(**SPECTRUM), **BATCHES)
        mean, _ = evaluate_masked(model, ours(**SPECTRUM), n_eval_episodes=3)
        assert np.isfinite(mean)
