"""A run of an agent's training: its checkpoint, its best agent, and the callback that ends it by its budget."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter

from agents.agent import PolicyError, RecurrentAgent, check_recipe, save_policy
from agents.features_extractor import AgentPolicy
from agents.rollout import EpisodeResults, draw_starts, play
from agents.training.resumption import Resumption
from agents.training.settings import AgentProgress, AgentTraining
from restore_env.compute.interruption import Interruption
from restore_env.images.files import write_atomically
from restore_env.task import Task
from restore_env.toolbox import Toolbox
from tools_zoo.training.cards import source_version
from tools_zoo.training.scalar_log import ScalarLog
from tools_zoo.training.trainer import digest
from tools_zoo.weight_files import load_checkpoint

CHECKPOINT_SECONDS = 60.0
VALIDATIONS = 50
"""Validations of a run whose budget is in steps."""
VALIDATION_EPISODES = 128


class Run:
    """The progress of a training, its checkpoint and its best agent."""

    def __init__(self, settings: AgentTraining, toolbox: Toolbox) -> None:
        self.settings, self.tools = settings, toolbox.names
        networks = [tool for tool in toolbox if isinstance(tool, torch.nn.Module)]
        self.toolbox_digest = digest(torch.nn.ModuleList(networks))
        self.path = settings.out / "checkpoint.pt"
        self.steps = 0
        self.seconds = 0.0
        self.best_gain = -float("inf")
        """Mean return of the best validation so far; the agent that had it is what is written."""
        self.rollout_share = 0.0
        """The used share of the budget at the start of the current rollout; the learning rate follows it."""
        self.validated = -1
        """Steps at the latest validation."""
        self._resumption = Resumption(settings.out)
        self._collected: dict[str, Any] | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint is compared by before it is resumed."""
        others = {"images": str(self.settings.images), "tools": list(self.tools), "toolbox": self.toolbox_digest}
        return {**self.settings.recorded(), **others}

    @property
    def share(self) -> float:
        """The used share of the budget, 0 to 1."""
        return min(1.0, self.settings.budget.share(self.steps, self.seconds))

    def save(self, model: BaseAlgorithm) -> None:
        """Write the checkpoint, between two rollouts."""
        state = {name: getattr(self, name) for name in ("identity", "steps", "seconds", "best_gain", "validated")}
        policy = model.policy
        state |= {"policy": policy.state_dict(), "optimizer": policy.optimizer.state_dict()}
        state["collected"] = self._resumption.save(model)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        torch.save(state, buffer)  # into a file, it would not say that a disk is full
        write_atomically(self.path, buffer.getvalue())
        self._resumption.saved()

    def resume(self, model: BaseAlgorithm) -> None:
        """Load the checkpoint's networks into the model, if there is one.

        Raises:
            PolicyError: it is damaged, or of other settings; the message says which.
        """
        if not self.path.exists():
            return
        try:
            state: dict[str, Any] = load_checkpoint(self.path)
            check_recipe(self.path, state["identity"], self.identity)
            model.policy.load_state_dict(state["policy"])
            model.policy.optimizer.load_state_dict(state["optimizer"])
            self.steps, self.seconds = int(state["steps"]), float(state["seconds"])
            self.best_gain = float(state["best_gain"])
            self.validated = int(state.get("validated", -1))
            self._collected = state.get("collected")  # earlier versions had none
        except Exception as error:
            raise self._damaged(error) from None
        model.num_timesteps = self.steps

    def go_on(self, model: BaseAlgorithm) -> None:
        """Let the model's environments and generators go on where the checkpoint left off, or begin by the seed.

        Raises:
            PolicyError: the checkpoint is damaged.
        """
        if self._collected is None:
            model.set_random_seed(self.settings.seed + self.steps)
            return
        try:
            self._resumption.restore(model, self._collected)
        except Exception as error:
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> Exception:
        """The error of a file that cannot be used: a damaged one makes torch raise nearly anything."""
        if isinstance(error, PolicyError):
            return error
        name = type(error).__name__
        return PolicyError(f"{self.path}: damaged or of another toolbox ({name}); delete it to start anew")

    @property
    def due_by_steps(self) -> bool:
        """Whether it is time for a validation, by the steps of the budget: so that the best agent is always the same.

        A budget in minutes is validated by the clock.
        """
        every = max(1, (self.settings.budget.steps or 0) // VALIDATIONS)
        return self.steps // every > self.validated // every

    @property
    def best_path(self) -> Path:
        """The file of the best agent."""
        return self.settings.out / "agent.safetensors"

    def keep_best(self, agent: RecurrentAgent, results: EpisodeResults) -> None:
        """Write the agent with its recipe, unless an earlier one had a higher return in validation."""
        if results.value < self.best_gain and self.best_path.exists():
            return
        self.best_gain = results.value
        agent.recipe = {
            **self.settings.recorded(),
            **({} if self.steps else {"algorithm": self.settings.start}),
            "encoder": agent.extractor.encoder,
            "steps": self.steps,
            "seconds": round(self.seconds, 1),
            "validation_gain_db": round(results.gain, 3),
            "validation_return": round(results.value, 4),
            "version": source_version(),
        }
        save_policy(agent, self.best_path)


class ScalarWriter(KVWriter):
    """Writes what Stable-Baselines3's logger records into a :class:`tools_zoo.training.scalar_log.ScalarLog`."""

    def __init__(self, folder: Path) -> None:
        self._log = ScalarLog(folder)

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Write the numbers."""
        wanted = {key for key in key_values if "tensorboard" not in (key_excluded.get(key) or ())}
        numbers = {
            key: key_values[key] for key in sorted(wanted) if isinstance(key_values[key], (int, float, np.number))
        }
        self._log.add({key: float(value) for key, value in numbers.items()}, step)

    def close(self) -> None:
        """Nothing is open."""


class BudgetCallback(BaseCallback):
    """Ends a training by its budget; validates, reports progress and writes checkpoints at intervals."""

    def __init__(
        self, run: Run, task: Task, report: Callable[[AgentProgress], None], interruption: Interruption
    ) -> None:
        super().__init__()
        self._run, self._task, self._report, self._interruption = run, task, report, interruption
        self.starts = draw_starts(task, VALIDATION_EPISODES, seed=run.settings.seed + 1_000_003)
        self._validation_gain = float("nan")
        self._before, self._began = run.seconds, time.monotonic()
        self._saved = -float("inf")

    def _on_step(self) -> bool:
        self._report(self._progress())
        return self._run.share < 1  # false at the first step after the last update, which does not count

    def _on_rollout_end(self) -> None:
        self._run.steps = self.num_timesteps

    def _on_rollout_start(self) -> None:
        now = time.monotonic()
        self._run.seconds = self._before + now - self._began
        self._run.rollout_share = self._run.share
        due, over = now - self._saved > CHECKPOINT_SECONDS, self._run.share >= 1
        if over or (due if self._run.settings.budget.steps is None else self._run.due_by_steps):
            self._validate()
        if over or due or self._interruption.requested:
            self._saved = now
            self._run.save(self.model)
            self._interruption.go_on()

    def _validate(self) -> None:
        """Run the validation episodes; a run that is repeated at its end does so again."""
        policy = self.model.policy
        assert isinstance(policy, AgentPolicy)
        with torch.random.fork_rng(devices=[]):  # the training's random numbers do not depend on it
            agent = policy.to_agent(self._run.tools)
            results = play(agent, self._task, self.starts)
        self._validation_gain = results.value
        self.logger.record("validation/gain_db", results.gain)
        self.logger.record("validation/return", results.value)
        self.logger.dump(self.num_timesteps)
        self._run.keep_best(agent, results)
        self._run.validated = self._run.steps

    def progress(self) -> AgentProgress:
        """How far the training is, with its latest validation."""
        return self._progress()

    def _progress(self) -> AgentProgress:
        episodes = self.model.ep_info_buffer
        gain = float(np.mean([episode["r"] for episode in episodes])) if episodes else float("nan")
        return AgentProgress(self._run.steps, self._run.share, gain, self._validation_gain)
