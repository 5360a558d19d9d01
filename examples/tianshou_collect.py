"""Tianshou's collector and DQN with action masks on the environment, in processes or in turn.

Run from the checkout: ``pip install -c constraints.txt -e ".[tianshou]"; python -m examples.tianshou_collect``.
"""

from __future__ import annotations

import argparse
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from tianshou.algorithm import DQN
from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv, SubprocVectorEnv
from tianshou.utils.net.common import Net
from tianshou.utils.torch_utils import policy_within_training_step

import restore_env  # noqa: F401  registers the environment


def make() -> gym.Env[Any, Any]:
    """The compact observation under the keys that Tianshou's policies read: ``obs`` and ``mask``."""
    env = gym.make("ImageRestorePureTrain-v0", observation=("spectrum", "steps_left", "action_mask"), flatten=False)
    assert isinstance(env.observation_space, spaces.Dict)

    def renamed(observation: dict[str, Any]) -> dict[str, Any]:
        row = np.append(observation["spectrum"] / 10, observation["steps_left"]).astype(np.float32)
        return {"obs": row, "mask": observation["action_mask"].astype(bool)}

    row = spaces.Box(-np.inf, np.inf, (205,), np.float32)
    space = spaces.Dict({"obs": row, "mask": env.observation_space["action_mask"]})
    return gym.wrappers.TransformObservation(env, renamed, space)


def main(arguments: list[str] | None = None) -> float:
    """Collect and update in turn, then evaluate; return the mean gain in dB."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--envs", type=int, default=8)
    parser.add_argument("--processes", action="store_true")
    options = parser.parse_args(arguments)

    envs = (SubprocVectorEnv if options.processes else DummyVectorEnv)([make] * options.envs)
    actions = make().action_space
    assert isinstance(actions, spaces.Discrete)
    policy = DiscreteQLearningPolicy(
        model=Net(state_shape=(205,), action_shape=int(actions.n), hidden_sizes=[64, 64]),
        action_space=actions,
        eps_training=0.3,
    )
    algorithm = DQN(policy=policy, optim=AdamOptimizerFactory(lr=1e-3), gamma=1.0, target_update_freq=50)
    buffer = VectorReplayBuffer(20_000, options.envs)
    collector = Collector(algorithm, envs, buffer, exploration_noise=True)
    collector.reset()
    for _ in range(0, options.steps, 2 * options.envs):
        with policy_within_training_step(policy):
            collector.collect(n_step=2 * options.envs)
            algorithm.update(buffer=buffer, sample_size=64)
    result = Collector(algorithm, envs).collect(n_episode=4 * options.envs, reset_before_collect=True)
    envs.close()
    mean = float(result.returns.mean())
    print(f"{len(buffer)} steps, gain {mean:+.2f} dB, infos {sorted(buffer.info.keys())}")
    return mean


if __name__ == "__main__":
    main()
