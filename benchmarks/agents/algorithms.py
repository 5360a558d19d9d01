"""What the benchmark trains: a row for each algorithm, with its hyperparameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from sb3_contrib import QRDQN, MaskablePPO, RecurrentPPO
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import nn

from agents.drqn.drqn import DRQN
from agents.ppo.policies import MaskedMultiInputLstmPolicy, MaskedRecurrentPolicy

Arguments = Mapping[str, Any]
FLAT: Arguments = MappingProxyType({"observation": "spectrum", "flatten": True})
SEPARATE: Arguments = MappingProxyType({"observation": "spectrum"})
WITHOUT_IMAGE: Arguments = MappingProxyType({"observation": ("last_action", "steps_left"), "flatten": True})
PIXELS: Arguments = MappingProxyType({"observation": "image"})
"""What a policy observes: the compact observation as one row, or as a Dict; no image at all; the patch."""


class DropoutReLU(nn.Sequential):
    """ReLU, then dropout with a given probability: an ``activation_fn`` of policies of Stable-Baselines3."""

    def __init__(self, probability: float) -> None:
        super().__init__(nn.ReLU(), nn.Dropout(probability))


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
    transposed: bool = False
    """Whether half of the episodes in training are of transposed patches, as far as the observation is compact."""
    floor: float = -float("inf")
    """Least reward in training, in the reward's unit: anything that is worse is equally bad. Rewards have a heavy tail
    on that side, which says little of which action is best."""


FLOOR = -1.0
_PPO: Arguments = MappingProxyType(
    {"n_steps": 16, "batch_size": 512, "n_epochs": 4, "gamma": 1.0, "learning_rate": 1e-3, "ent_coef": 0.03}
)
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
        "exploration_final_eps": 0.3,
    }
)
_MLP: Arguments = MappingProxyType({"net_arch": [256, 256], "activation_fn": nn.ReLU})
_LSTM: Arguments = MappingProxyType(
    {"lstm_hidden_size": 128, "enable_critic_lstm": False, "net_arch": [128], "activation_fn": nn.ReLU}
)
_REGULARIZED: Arguments = MappingProxyType(
    {
        "activation_fn": partial(DropoutReLU, 0.3),
        "optimizer_class": torch.optim.AdamW,
        "optimizer_kwargs": {"weight_decay": 1.0},
    }
)
"""Against overfitting: a replayed transition is learned from many times."""

ALGORITHMS: Mapping[str, Algorithm] = MappingProxyType(
    {
        "ppo": Algorithm("PPO", PPO, "MlpPolicy", _PPO, _MLP, floor=FLOOR),
        "ppo_without_image": Algorithm(
            "PPO without the image", PPO, "MlpPolicy", {**_PPO, "ent_coef": 0.01}, observed=WITHOUT_IMAGE, share=0.1
        ),
        "recurrent_ppo": Algorithm("RecurrentPPO", RecurrentPPO, "MlpLstmPolicy", _PPO, _LSTM, share=0.5, floor=FLOOR),
        "recurrent_ppo_masks": Algorithm(
            "RecurrentPPO, masks",
            RecurrentPPO,
            MaskedMultiInputLstmPolicy,
            _PPO,
            _LSTM,
            SEPARATE,
            share=0.5,
            floor=FLOOR,
        ),
        "maskable_ppo": Algorithm("MaskablePPO", MaskablePPO, "MlpPolicy", _PPO, _MLP, floor=FLOOR),
        "dqn": Algorithm(
            "DQN", DQN, "MlpPolicy", _DQN, {**_REGULARIZED, "net_arch": [256, 256]}, share=0.3, floor=FLOOR
        ),
        "qrdqn": Algorithm(
            "QR-DQN",
            QRDQN,
            "MlpPolicy",
            _DQN,
            {**_REGULARIZED, "net_arch": [256, 256], "n_quantiles": 25},
            share=0.3,
            floor=FLOOR,
        ),
        "drqn": Algorithm(
            "DRQN",
            DRQN,
            "MlpLstmPolicy",
            {**_DQN, "gradient_steps": 1},
            {**_REGULARIZED, "lstm_hidden_size": 64, "net_arch": [128]},
            share=0.3,
            noise=0.5,
            floor=FLOOR,
        ),
        "pixels": Algorithm(
            "RecurrentPPO, pixels", RecurrentPPO, MaskedRecurrentPolicy, _PPO, observed=PIXELS, share=0.1, floor=FLOOR
        ),
    }
)
"""Every algorithm, by the name that ``--algorithms`` takes."""
