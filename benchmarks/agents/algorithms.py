"""What the benchmark trains: a row for each algorithm, with its hyperparameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from sb3_contrib import QRDQN, MaskablePPO, RecurrentPPO
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import nn

from agents.drqn.drqn import DRQN
from agents.ppo.policies import MaskedMultiInputLstmPolicy, MaskedRecurrentPolicy

Arguments = Mapping[str, Any]
FLAT: Arguments = MappingProxyType({"observation": "spectrum", "flatten": True})
SEPARATE: Arguments = MappingProxyType({"observation": "spectrum"})
BLIND: Arguments = MappingProxyType({"observation": ("last_action", "steps_left"), "flatten": True})
PIXELS: Arguments = MappingProxyType({"observation": "image"})
"""What a policy observes: the compact observation as one row, or as a Dict; no image at all; the patch."""


@dataclass(frozen=True)
class Algorithm:
    """An algorithm of Stable-Baselines3 with its hyperparameters."""

    title: str
    model: Callable[..., BaseAlgorithm]
    policy: str | type
    arguments: Arguments
    """Of the model; the learning rate falls linearly to zero."""
    network: Arguments = field(default_factory=dict)
    """The policy's own arguments (``policy_kwargs``)."""
    observed: Arguments = field(default_factory=lambda: FLAT)
    """The environment's arguments."""
    share: float = 1.0
    """Of the benchmark's environment steps: an algorithm whose steps cost more takes fewer."""
    envs: int = 64
    noise: float = 0.0
    """Standard deviation of what is added to the standardized compact observation in training."""
    floor: float = -float("inf")
    """Least reward in training, in the reward's unit: anything that is worse is equally bad."""


_PPO: Arguments = MappingProxyType(
    {"n_steps": 16, "batch_size": 512, "n_epochs": 4, "gamma": 1.0, "learning_rate": 1e-3, "ent_coef": 0.01}
)
_LSTM: Arguments = MappingProxyType({"lstm_hidden_size": 64, "enable_critic_lstm": False})
_DQN: Arguments = MappingProxyType(
    {
        "gamma": 1.0,
        "learning_rate": 1e-3,
        "batch_size": 256,
        "buffer_size": 200_000,
        "learning_starts": 5_000,
        "train_freq": 1,
        "gradient_steps": 2,
        "target_update_interval": 2_000,
        "exploration_fraction": 0.5,
        "exploration_final_eps": 0.1,
    }
)
_WIDE: Arguments = MappingProxyType({"net_arch": [256, 256], "activation_fn": nn.ReLU})

ALGORITHMS: Mapping[str, Algorithm] = MappingProxyType(
    {
        "ppo": Algorithm("PPO", PPO, "MlpPolicy", _PPO),
        "ppo_blind": Algorithm("PPO without the image", PPO, "MlpPolicy", _PPO, observed=BLIND, share=0.1),
        "recurrent_ppo": Algorithm("RecurrentPPO", RecurrentPPO, "MlpLstmPolicy", _PPO, _LSTM),
        "recurrent_ppo_masks": Algorithm(
            "RecurrentPPO, masks", RecurrentPPO, MaskedMultiInputLstmPolicy, _PPO, _LSTM, SEPARATE
        ),
        "maskable_ppo": Algorithm("MaskablePPO", MaskablePPO, "MlpPolicy", _PPO),
        "dqn": Algorithm("DQN", DQN, "MlpPolicy", _DQN, _WIDE),
        "qrdqn": Algorithm("QR-DQN", QRDQN, "MlpPolicy", _DQN, {**_WIDE, "n_quantiles": 25}),
        "drqn": Algorithm("DRQN", DRQN, "MlpLstmPolicy", _DQN, {"lstm_hidden_size": 64}),
        "pixels": Algorithm(
            "RecurrentPPO, pixels", RecurrentPPO, MaskedRecurrentPolicy, _PPO, observed=PIXELS, share=0.1
        ),
    }
)
"""Every algorithm, by the name that ``--algorithms`` takes."""
