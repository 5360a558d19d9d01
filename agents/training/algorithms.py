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
from agents.encoders import ENCODERS, EncoderName
from agents.features_extractor import AgentPolicy
from agents.ppo.policies import MaskedRecurrentPolicy
from restore_env import ENV_ID
from restore_env.errors import ImageRestoreError, one_line


def parse_hyperparameters(data: bytes, name: str) -> dict[str, Any]:
    """Read hyperparameters from a file of rl-zoo3's format, as numbers; ``learning_rate`` is the one at the start.

    Args:
        data: YAML.
        name: of the file, for errors.

    Raises:
        ValueError: no YAML of that kind, or a learning rate that is not "lin_" and a number, rl-zoo3's word for a
            linear fall to zero.
    """
    try:
        values = yaml.safe_load(data)[ENV_ID]
        known = {str(key): value for key, value in values.items() if key not in ("policy", "n_timesteps")}  # rl-zoo3's
        rate = str(known["learning_rate"])
    except Exception as error:  # PyYAML raises nearly anything
        raise ImageRestoreError(f"{name}: no hyperparameters of {ENV_ID}: {one_line(error)}") from None
    try:
        fall, _, start = rate.partition("_")
        known["learning_rate"] = float(start) if fall == "lin" else float("nan")
    except ValueError:
        known["learning_rate"] = float("nan")
    if not 0 < known["learning_rate"] < float("inf"):
        raise ImageRestoreError(f"{name}: learning_rate must be lin_ and a number, it is {rate}")
    odd = next((key for key, value in known.items() if not isinstance(value, (int, float))), None)
    if odd is not None:
        raise ImageRestoreError(f"{name}: {odd} must be a number, it is {known[odd]!r}")
    return known


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
            ValueError: the file is not usable.
        """
        data = (resources.files("agents") / "hyperparameters" / self.file).read_bytes()
        values = parse_hyperparameters(data, self.file)
        unknown = sorted(changes.keys() - values.keys())
        if unknown:
            raise TypeError(f"{self.name} has no hyperparameter {unknown[0]!r}: it has {', '.join(values)}")
        return {**values, **changes}

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
        network = {
            "features_extractor_kwargs": {"encoder": encoder, "half": half},
            "lstm_hidden_size": ENCODERS[encoder]().hidden,
        }
        return self.model(self.policy, environment, seed=seed, device=device, policy_kwargs=network, **arguments)


AlgorithmName = Literal["ppo", "drqn"]
ALGORITHMS: Mapping[AlgorithmName, Algorithm] = MappingProxyType(
    {
        "ppo": Algorithm(
            "RecurrentPPO", "sb3-contrib's RecurrentPPO", RecurrentPPO, MaskedRecurrentPolicy, "ppo_lstm.yml", 1
        ),
        "drqn": Algorithm("DRQN", "DRQN (`agents/drqn/drqn.py`)", DRQN, RestoreQPolicy, "drqn.yml", 500),
    }
)
