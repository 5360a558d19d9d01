"""The environment in TorchRL: single, as the native vector environment, and in processes; masked random actions.

Run from the checkout: ``pip install -c constraints.txt -e ".[torchrl]"; python -m examples.torchrl_env``.
"""

from __future__ import annotations

import argparse
from typing import Any

import gymnasium as gym
from torchrl.envs import ActionMask, EnvBase, GymEnv, GymWrapper, ParallelEnv, TransformedEnv, check_env_specs

import restore_env  # noqa: F401  registers the environment

TASK: dict[str, Any] = {"severity": "any", "upscale": (1, 4)}


def single(num_envs: int) -> EnvBase:
    """One environment."""
    return GymEnv("ImageRestore-v0", categorical_action_encoding=True, **TASK)


def vector(num_envs: int) -> EnvBase:
    """The native vector environment: TorchRL resets by mask, as it prefers."""
    envs = gym.make_vec("ImageRestore-v0", num_envs, autoreset_mode="Disabled", **TASK)
    return GymWrapper(envs, categorical_action_encoding=True)


def processes(num_envs: int) -> EnvBase:
    """Two processes with an environment each."""
    return ParallelEnv(2, single, create_env_kwargs={"num_envs": 1})


def compact(num_envs: int) -> EnvBase:
    """Observations as rows of numbers, the mask from the infos, and Gymnasium's mode ``SameStep``."""
    envs = gym.make_vec("ImageRestore-v0", num_envs, autoreset_mode="SameStep", observation="spectrum", flatten=True)
    return GymWrapper(envs, categorical_action_encoding=True)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Check the specifications and play; return the mean reward of random actions in each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--envs", type=int, default=8)
    options = parser.parse_args(arguments)

    rewards = {}
    for make in (single, vector, compact, processes):
        env = TransformedEnv(make(options.envs), ActionMask())  # random actions are allowed ones
        check_env_specs(env)
        played = env.rollout(options.steps, break_when_any_done=False)
        env.close()
        rewards[make.__name__] = float(played["next", "reward"].mean())
        print(f"{make.__name__}: {tuple(played.shape)} steps, mean reward {rewards[make.__name__]:+.2f} dB")
        assert played["action_mask"].gather(-1, played["action"][..., None]).all()
    return rewards


if __name__ == "__main__":
    main()
