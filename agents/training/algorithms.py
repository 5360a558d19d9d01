"""The algorithms that can train the agent, and their hyperparameters, which rl-zoo3 reads from the same files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from types import MappingProxyType
from typing import Any, ClassVar, Literal, TypeVar

import torch
import yaml
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv

from agents.drqn.drqn import DRQN
from agents.drqn.policies import RestoreQPolicy
from agents.encoders import EncoderName
from agents.ppo.policies import MaskedRecurrentPolicy
from restore_env import ENV_ID

SelfSettings = TypeVar("SelfSettings", bound="AlgorithmSettings")
RestorePolicy = MaskedRecurrentPolicy | RestoreQPolicy
"""The policies of both algorithms; they have ``to_agent`` and ``load_agent``."""


@dataclass(frozen=True)
class AlgorithmSettings(ABC):
    """An algorithm and its hyperparameters."""

    name: ClassVar[str]
    """Of the algorithm."""
    origin: ClassVar[str]
    """Where it comes from, for the model card."""
    file: ClassVar[str]
    """In ``agents/hyperparameters``."""
    policy: ClassVar[type[RestorePolicy]]
    log_interval: ClassVar[int]
    """Rollouts, or episodes, between two entries in the log."""

    learning_rate: float
    """At the start; decreases linearly to zero over the budget."""
    n_envs: int
    """Parallel environments."""

    @classmethod
    def defaults(cls: type[SelfSettings], **changes: Any) -> SelfSettings:
        """The hyperparameters of the file, with changes.

        Raises:
            TypeError: the algorithm has no such hyperparameter.
            ValueError: the file's learning rate is not "lin_" and a number, rl-zoo3's word for a linear fall to zero.
        """
        text = (resources.files("agents") / "hyperparameters" / cls.file).read_text(encoding="utf-8")
        values: dict[str, Any] = yaml.safe_load(text)[ENV_ID]
        del values["policy"], values["n_timesteps"]  # rl-zoo3's
        fall, _, rate = str(values["learning_rate"]).partition("_")
        if fall != "lin":
            raise ValueError(f"{cls.file}: learning_rate must be lin_ and a number, it is {values['learning_rate']}")
        return cls(**{**values, "learning_rate": float(rate), **changes})

    def build(
        self,
        environment: VecEnv,
        share: Callable[[], float],
        seed: int,
        device: torch.device,
        encoder: EncoderName,
        half: bool = False,
    ) -> BaseAlgorithm:
        """Make the algorithm; its schedules follow the used share of the budget.

        Args:
            environment: of ``n_envs`` environments.
            share: returns the share of the budget that is used, 0 to 1.
            seed: of everything random.
            device: of the networks.
            encoder: a key of :data:`agents.encoders.ENCODERS`.
            half: compute features in bf16 during training; weights stay float32.
        """
        arguments = {name: value for name, value in asdict(self).items() if name not in ("n_envs", "learning_rate")}
        arguments["learning_rate"] = lambda _: self.learning_rate * (1 - share())
        arguments["policy_kwargs"] = {"features_extractor_kwargs": {"encoder": encoder, "half": half}}
        return self._build({"env": environment, "seed": seed, "device": device, **arguments}, share)

    @abstractmethod
    def _build(self, arguments: dict[str, Any], share: Callable[[], float]) -> BaseAlgorithm: ...


@dataclass(frozen=True)
class PPOSettings(AlgorithmSettings):
    """RecurrentPPO."""

    name = "RecurrentPPO"
    origin = "sb3-contrib's RecurrentPPO"
    file = "ppo_lstm.yml"
    policy = MaskedRecurrentPolicy
    log_interval = 1

    n_steps: int
    batch_size: int
    n_epochs: int
    gamma: float
    gae_lambda: float
    ent_coef: float
    vf_coef: float
    clip_range: float
    max_grad_norm: float

    def _build(self, arguments: dict[str, Any], share: Callable[[], float]) -> BaseAlgorithm:
        model: BaseAlgorithm = RecurrentPPO(self.policy, **arguments)
        return model


@dataclass(frozen=True)
class DRQNSettings(AlgorithmSettings):
    """Deep recurrent Q-learning."""

    name = "DRQN"
    origin = "DRQN (`agents/drqn/drqn.py`)"
    file = "drqn.yml"
    policy = RestoreQPolicy
    log_interval = 500

    buffer_size: int
    """Transitions, 12 kB each."""
    learning_starts: int
    batch_size: int
    """Episodes."""
    gamma: float
    train_freq: int
    gradient_steps: int
    double_q: bool
    tau: float
    target_update_interval: int
    exploration_initial_eps: float
    exploration_final_eps: float
    exploration_fraction: float
    """Of the budget."""
    max_grad_norm: float

    def _build(self, arguments: dict[str, Any], share: Callable[[], float]) -> BaseAlgorithm:
        epsilon = LinearSchedule(self.exploration_initial_eps, self.exploration_final_eps, self.exploration_fraction)
        return DRQN(self.policy, exploration_schedule=lambda _: epsilon(1 - share()), **arguments)


AlgorithmName = Literal["ppo", "drqn"]
ALGORITHMS: Mapping[AlgorithmName, type[AlgorithmSettings]] = MappingProxyType(
    {"ppo": PPOSettings, "drqn": DRQNSettings}
)


def restore_policy(model: BaseAlgorithm) -> RestorePolicy:
    """The policy of a model that :meth:`AlgorithmSettings.build` made."""
    assert isinstance(model.policy, (MaskedRecurrentPolicy, RestoreQPolicy))
    return model.policy
