"""An environment that needs memory, and small DRQNs that learn it."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env

from agents.drqn.drqn import DRQN


class Recall(gym.Env[npt.NDArray[np.float32], np.int64]):
    """The first observation shows one of two cues; after 2 to 4 blank ones it pays to name it."""

    observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.cue, self.left = int(self.np_random.integers(2)), int(self.np_random.integers(3, 6))
        return np.array([2 * self.cue - 1, 0, 0], np.float32), {}

    def step(self, action: np.int64) -> Any:
        self.left -= 1
        over = self.left == 0
        observation = np.array([0, 1, self.left == 1], np.float32)
        return observation, (1.0 if action == self.cue else -1.0) * over, over, False, {}


SMALL: dict[str, Any] = {"learning_starts": 50, "buffer_size": 1000, "batch_size": 8, "device": "cpu", "seed": 0}


def recalling(seed: int = 0) -> DRQN:
    return DRQN(
        "MlpLstmPolicy",
        make_vec_env(Recall, 8, seed=seed),
        learning_rate=1e-2,
        buffer_size=4000,
        learning_starts=200,
        train_freq=1,
        gradient_steps=1,
        target_update_interval=200,
        exploration_fraction=0.5,
        policy_kwargs={"lstm_hidden_size": 16},
        seed=seed,
        device="cpu",
    )
