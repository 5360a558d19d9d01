"""The algorithms that can train the agent, and their hyperparameters, which rl-zoo3 reads from the same files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType
from typing import Any, Literal

import torch
import yaml
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv

from agents.drqn.drqn import DRQN
from agents.drqn.policies import RestoreQPolicy
from agents.encoders import EncoderName
from agents.features_extractor import AgentPolicy
from agents.ppo.policies import MaskedRecurrentPolicy
from restore_env import ENV_ID


@dataclass(frozen=True)
class Algorithm:
    """An algorithm of Stable-Baselines3."""

    name: str
    origin: str
    """Where it comes from, for the model card."""
    model: Callable[..., BaseAlgorithm]
    policy: type[AgentPolicy]
    file: str
    """Its hyperparameters, in ``agents/hyperparameters``."""
    log_interval: int
    """Rollouts, or episodes, between two entries in the log."""

    def hyperparameters(self, **changes: Any) -> dict[str, Any]:
        """The hyperparameters of the file, with changes; ``learning_rate`` is the one at the start.

        Raises:
            TypeError: the algorithm has no such hyperparameter.
            ValueError: the file's learning rate is not "lin_" and a number, rl-zoo3's word for a linear fall to zero.
        """
        text = (resources.files("agents") / "hyperparameters" / self.file).read_text(encoding="utf-8")
        values: dict[str, Any] = yaml.safe_load(text)[ENV_ID]
        del values["policy"], values["n_timesteps"]  # rl-zoo3's
        fall, _, rate = str(values["learning_rate"]).partition("_")
        if fall != "lin":
            raise ValueError(f"{self.file}: learning_rate must be lin_ and a number, it is {values['learning_rate']}")
        unknown = sorted(changes.keys() - values.keys())
        if unknown:
            raise TypeError(f"{self.name} has no hyperparameter {unknown[0]!r}: it has {', '.join(values)}")
        return {**values, "learning_rate": float(rate), **changes}

    def build(
        self,
        hyperparameters: Mapping[str, Any],
        environment: VecEnv,
        share: Callable[[], float],
        seed: int,
        device: torch.device,
        encoder: EncoderName,
        half: bool = False,
    ) -> BaseAlgorithm:
        """Make the algorithm; its schedules follow the used share of the budget.

        Args:
            hyperparameters: all of them.
            environment: of ``n_envs`` environments.
            share: returns the share of the budget that is used, 0 to 1.
            seed: of everything random.
            device: of the networks.
            encoder: a key of :data:`agents.encoders.ENCODERS`.
            half: compute features in bf16 during training; weights stay float32.
        """
        arguments = {name: value for name, value in hyperparameters.items() if name != "n_envs"}
        arguments["learning_rate"] = lambda _: hyperparameters["learning_rate"] * (1 - share())
        if "exploration_fraction" in arguments:
            names = ("exploration_initial_eps", "exploration_final_eps", "exploration_fraction")
            epsilon = LinearSchedule(*(arguments[name] for name in names))
            arguments["exploration_schedule"] = lambda _: epsilon(1 - share())
        features = {"features_extractor_kwargs": {"encoder": encoder, "half": half}}
        return self.model(self.policy, environment, seed=seed, device=device, policy_kwargs=features, **arguments)


AlgorithmName = Literal["ppo", "drqn"]
ALGORITHMS: Mapping[AlgorithmName, Algorithm] = MappingProxyType(
    {
        "ppo": Algorithm(
            "RecurrentPPO", "sb3-contrib's RecurrentPPO", RecurrentPPO, MaskedRecurrentPolicy, "ppo_lstm.yml", 1
        ),
        "drqn": Algorithm("DRQN", "DRQN (`agents/drqn/drqn.py`)", DRQN, RestoreQPolicy, "drqn.yml", 500),
    }
)
