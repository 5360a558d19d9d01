"""The settings of an agent's training and its progress."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from agents.encoders import EncoderName
from agents.training.algorithms import ALGORITHMS, AlgorithmName
from restore_env.distortions.protocol import check_severity
from restore_env.resolve import resolve_metric, task_factors, task_toolbox
from restore_env.task import Task
from sr_models import with_super_resolvers
from tools_zoo.training.settings import PhotographSettings, TrainingSettings, identity, option


@dataclass(frozen=True, kw_only=True)
class AgentTraining(PhotographSettings, TrainingSettings):
    """The settings of ``imagerestore train agent``; ``out`` gets weights, checkpoint, logs and the model card."""

    images: Any = option(None, "folder of clean photographs (default: the embedded ones)", parse=Path, recorded=False)
    toolbox: Any = option(
        None,
        "shipped name, folder or package.module:factory (default: the environment's, with the super-resolvers)",
        parse=str,
        recorded=False,
    )
    backend: str | None = option(None, "what runs the tools on a CPU (default: torch)", metavar="NAME", recorded=False)
    severity: str = option(
        "mixed",
        "distortions: mixed, as they come; mild, moderate, severe: RL-Restore's; light: weaker than mild; any: light to"
        " severe; single: one distortion; or sums of levels from 1 to 28, as 12-13 or 12,17; or several, as any+single",
    )
    saturation_prob: float = option(
        0.0, "probability that a patch is made so bright or dark that a part of it saturates", values="share"
    )
    upscale: tuple[int, ...] | None = option(
        None,
        "upscale factors of the task; with 4 the super-resolvers are added to the toolbox (default: the scales of the"
        " toolbox's tools)",
        choices=(1, 4),
    )
    reward: Any = option(
        "psnr", "metric whose gain is the reward: psnr, ssim, perceptual, or package.module:function", parse=str
    )
    max_steps: int = option(3, "most tools in a chain", values="positive")
    stop_if_worse: bool = option(False, "end an episode when its PSNR falls below that of the input")
    cost_weight: float = option(0.0, "price of computation, reward (dB) per GMAC")
    init: str | None = option(
        None, "policy to start from, of these tools or some of them: shipped name or file", metavar="NAME|FILE"
    )
    encoder: EncoderName = option(
        "published",
        "network that encodes a patch, without --init: published, RL-Restore's four convolutions; compact, two"
        " layers on the compact observation; combined, these and three convolutions",
    )
    algorithm: AlgorithmName = option(
        "ppo", "RecurrentPPO or deep recurrent Q-learning; hyperparameters in agents/hyperparameters", recorded=False
    )
    envs: int | None = option(
        None, "parallel environments (default: the algorithm's)", values="positive", recorded=False
    )
    learning_rate: float | None = option(
        None, "at the start (default: the algorithm's)", values="positive", recorded=False
    )
    hyperparameters: Mapping[str, Any] | None = option(None, recorded=False)
    """Other hyperparameters of the algorithm that differ from its file."""
    warm_start: float | None = option(
        None,
        "first imitate what is best on levels of the task, on top of the budget",
        values="positive",
        metavar="MINUTES",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_severity(self.severity)
        resolve_metric(self.reward)
        task_factors(self.task)  # resolves it, before anything is written

    @cached_property
    def task(self) -> Task:
        """The task that is trained and validated on."""
        names = {each.name for each in fields(self)} & {each.name for each in fields(Task)}
        task = Task(**{name: getattr(self, name) for name in names})
        tools = task_toolbox(task)
        if max(task_factors(task)) > 1:
            tools = with_super_resolvers(tools)
        return replace(task, toolbox=tools, backend=None)

    @property
    def start(self) -> str:
        """How the policy came about that reinforcement learning starts from."""
        if self.warm_start:
            return "imitation of the best chains"
        return "no training (random weights)" if self.init is None else f"no training ({self.init} as it was)"

    @cached_property
    def all_hyperparameters(self) -> Mapping[str, Any]:
        """All hyperparameters of the algorithm."""
        given = {"n_envs": self.envs, "learning_rate": self.learning_rate}
        changes = {name: value for name, value in given.items() if value is not None}
        return ALGORITHMS[self.algorithm].hyperparameters(**{**(self.hyperparameters or {}), **changes})

    def recorded(self) -> dict[str, Any]:
        """All settings that determine the weights, as plain values: for the checkpoint and the recipe."""
        others = {
            "upscale": list(task_factors(self.task)),
            "reward": reward_name(self.task),
        }
        return {
            "algorithm": ALGORITHMS[self.algorithm].name,
            **self.all_hyperparameters,
            **identity(self),
            **others,
        }


def reward_name(task: Task) -> str:
    """The reward's name, its import string, or the function's own name."""
    return task.reward if isinstance(task.reward, str) else getattr(task.reward, "__qualname__", repr(task.reward))


@dataclass(frozen=True)
class AgentProgress:
    """How far a training is."""

    steps: int
    share: float
    """Of the budget, 0 to 1."""
    gain: float
    """Mean return of the latest episodes."""
    validation_gain: float
    """Mean return of the deterministic policy on the same 128 episodes each time: with the reward "psnr" and no price
    on computation the gain in dB."""
    warm_start: float = 1.0
    """Share of the warm start that is done, 0 to 1."""
    remark: str = ""
    """At the end of a run: that it did not beat its start or a constant chain."""
