"""Training the recurrent agent with RecurrentPPO or DRQN, within a budget, resumable."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecMonitor

from agents.agent import PolicyError, RecurrentAgent, load_policy, save_policy, with_more_tools
from agents.encoders import EncoderName
from agents.imitation.demonstrations import check_shares, single_distortion_tasks
from agents.imitation.imitation import learn_from_oracle
from agents.rollout import EpisodeResults, draw_starts, play
from agents.sb3_env import RestoreVecEnv
from agents.training.algorithms import AlgorithmSettings, PPOSettings, RestorePolicy, restore_policy
from restore_env.compute.memory import retained_memory
from restore_env.images.files import write_atomically
from restore_env.resolve import task_factors, task_toolbox
from restore_env.task import Task
from restore_env.toolbox import FunctionTool, Tool, Toolbox
from tools_zoo.training.cards import source_version, write_card
from tools_zoo.training.curves import draw_run
from tools_zoo.training.settings import Budget
from tools_zoo.training.trainer import digest

CHECKPOINT_SECONDS = 60.0
VALIDATION_EPISODES = 128
QUALITIES = {"psnr": "PSNR", "ssim": "SSIM", "perceptual": "perceptual quality (minus a distance of features)"}
"""The rewards' names in a model card."""
_BEFORE_THERE_WAS = {
    "algorithm": PPOSettings.name,
    "encoder": "published",
    "saturation_prob": 0.0,
    "reward": "psnr",
    "distortion": "none",
    "distortion_share": 0.0,
}  # what an older checkpoint, which does not say, was made with
WARM_START = "imitation of a greedy oracle"
"""The algorithm of an agent that was best before the first step of its own."""
_UNBOUNDED = 10**12  # steps; the budget ends a run, not SB3's count


@dataclass(frozen=True)
class AgentTraining:
    """The settings of ``imagerestore train agent``."""

    out: Path
    """Folder for ``agent.safetensors``, the checkpoint, logs and the model card."""
    budget: Budget
    """Minutes, or environment steps."""
    task: Task
    """What to be good at."""
    algorithm: AlgorithmSettings = field(default_factory=PPOSettings.defaults)
    """RecurrentPPO or DRQN, with its hyperparameters."""
    init: str | None = None
    """A policy (name or path) to start from, of the toolbox's tools or some of them; None: random weights."""
    encoder: EncoderName = "published"
    """How an agent that starts from random weights looks at a patch, a key of :data:`agents.encoders.ENCODERS`."""
    single_share: float = 0.0
    """Share of the warm start's episodes that start from one distortion alone."""
    distortion: str | None = None
    """The import string, ``"package.module:factory"``, of an ``albumentations.Compose`` of one's own that a share of
    the warm start's episodes carry. It is not validated on: validation is the task's."""
    distortion_share: float = 0.0
    """That share."""
    warm_start_minutes: float = 0.0
    """Minutes of imitation of an oracle before the algorithm, on top of the budget."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16, of the tools it practises with and of its look at patches while it learns, takes about half of the time
    where the processor has it (AVX512-BF16, AMX, CUDA). Its weights are float32; validation is as without."""
    seed: int = 0
    command: str = ""
    """The command line, for the model card."""

    def __post_init__(self) -> None:
        check_shares(self.extra_tasks(self.task))

    def extra_tasks(self, task: Task) -> list[tuple[Task, float]]:
        """What the warm start shows beside a task, and for which share of its episodes."""
        own = [(replace(task, distortion=self.distortion), self.distortion_share)] if self.distortion_share else []
        return [*single_distortion_tasks(task, self.single_share), *own]


@dataclass(frozen=True)
class AgentProgress:
    """A glance at a run, for display."""

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


@retained_memory()
def train_agent(
    settings: AgentTraining, report: Callable[[AgentProgress], None] = lambda _: None
) -> tuple[RecurrentAgent, AgentProgress]:
    """Train an agent, or go on where ``out`` left off, and write ``out/agent.safetensors``: the best in validation.

    A checkpoint does not hold DRQN's replay: a run that goes on fills it anew before it learns, by the policy as it is
    and the epsilon that the budget has come to.

    Raises:
        PolicyError: a checkpoint that is damaged or of other settings, or an ``init`` that does not fit the toolbox.
    """
    settings.out.mkdir(parents=True, exist_ok=True)
    toolbox = task_toolbox(settings.task)
    half = settings.precision == "bf16"
    arguments = {name: getattr(settings.task, name) for name in Task.__dataclass_fields__} | {"toolbox": toolbox}
    played_with = in_half_precision(toolbox) if half else toolbox
    environment = VecMonitor(RestoreVecEnv(settings.algorithm.n_envs, **{**arguments, "toolbox": played_with}))
    run = _Run(settings, toolbox)
    init = None if settings.init is None else load_policy(settings.init)
    if init is not None and init.tools != toolbox.names:
        init = with_more_tools(init, toolbox.names, settings.init)
    encoder = init.extractor.encoder if init is not None else settings.encoder
    model = settings.algorithm.build(
        environment, lambda: run.rollout_share, settings.seed, toolbox.device, encoder, half
    )
    policy = restore_policy(model)
    if init is not None:
        policy.load_agent(init)
    if settings.warm_start_minutes and not run.path.exists():
        _warm_start(policy, settings, Task(**arguments), toolbox.names, report)
        run.save(model)
    run.resume(model)
    if run.done and run.best_path.exists():
        environment.close()
        agent = load_policy(run.best_path)
        return agent, AgentProgress(run.steps, 1.0, float("nan"), run.best_gain)
    environment.seed(settings.seed + run.steps)
    model.set_logger(configure(str(settings.out / "logs"), ["tensorboard"]))
    callback = _Budgeted(run, Task(**arguments), report)
    model.learn(_UNBOUNDED, callback, log_interval=settings.algorithm.log_interval, reset_num_timesteps=False)
    progress = callback.validated()
    run.save(model)
    environment.close()
    reward = reward_name(settings.task)
    tag, label = ("gain_db", "gain, dB") if reward == "psnr" else ("return", f"return ({reward})")
    draw_run(run.path.with_suffix(".png"), settings.out / "logs", {f"validation/{tag}": "validation"}, label)
    agent = load_policy(run.best_path)
    _write_card(agent, settings)
    return agent, replace(progress, validation_gain=run.best_gain)


def _warm_start(
    policy: RestorePolicy,
    settings: AgentTraining,
    task: Task,
    tools: tuple[str, ...],
    report: Callable[[AgentProgress], None],
) -> None:
    """Let the agent learn from an oracle before it learns by itself."""

    def show(share: float) -> None:
        report(AgentProgress(0, 0.0, float("nan"), float("nan"), warm_start=share))

    agent = policy.to_agent(tools)
    seconds, pretrained = settings.warm_start_minutes * 60, settings.init is not None
    learn_from_oracle(
        agent,
        task,
        seconds,
        settings.seed,
        pretrained=pretrained,
        precision=settings.precision,
        extra_tasks=settings.extra_tasks(task),
        report=show,
    )
    policy.load_agent(agent)


def reward_name(task: Task) -> str:
    """What the reward is called: its name, its import string, or the function's own name."""
    return task.reward if isinstance(task.reward, str) else getattr(task.reward, "__qualname__", repr(task.reward))


def _write_card(agent: RecurrentAgent, settings: AgentTraining) -> None:
    reward = reward_name(settings.task)
    sizes = " and ".join("of the same size" if factor == 1 else f"x{factor}" for factor in task_factors(settings.task))
    rows = "\n".join(f"| {name.replace('_', ' ')} | {value} |" for name, value in agent.recipe.items())
    text = f"""# An agent that composes toolchains

The recurrent policy of `agents/agent.py` (after RL-Restore: Yu et al., CVPR 2018), which looks in the way
`{agent.extractor.encoder}` of `agents/encoders.py`, over the tools
{", ".join(agent.tools)}. It looks at {agent.patch_size}x{agent.patch_size} RGB patches. Load with `agents.load_policy`.

Trained with {settings.algorithm.origin} in `ImageRestore-v0` on mixed distortions of {settings.task.severity}
severity, {sizes}; the reward is the gain in {QUALITIES.get(reward, reward)}. Validation: the mean return over
{VALIDATION_EPISODES} episodes, the same ones each time, on the training photographs; the agent that did best in it is
the one that is kept ("steps" says when that was).

| | |
|---|---|
{rows}

```
{settings.command}
```
"""
    write_card(settings.out / "README.md", text, ["agents"])


def in_half_precision(toolbox: Toolbox) -> Toolbox:
    """The same tools, run in bf16: what the agent practises with; it is validated with the tools as they are."""

    def halved(tool: Tool) -> FunctionTool:
        def run(images: torch.Tensor) -> torch.Tensor:
            with torch.autocast(toolbox.device.type, torch.bfloat16):
                return tool(images).float()

        return FunctionTool(tool.name, run, tool.scale, tool.macs_per_pixel, tool.receptive_radius)

    return Toolbox([halved(tool) for tool in toolbox], toolbox.device)


class _Run:
    """How far a run has come, and its checkpoint."""

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
        """The share when the present rollout began: what the learning rate follows."""

    @property
    def identity(self) -> dict[str, Any]:
        """What makes the run what it is: a checkpoint of another one is not taken up."""
        task = self.settings.task
        names = ("severity", "saturation_prob", "max_steps", "stop_if_worse", "cost_weight")
        chosen = {name: getattr(task, name) for name in names}
        return {
            "algorithm": self.settings.algorithm.name,
            **asdict(self.settings.algorithm),
            **chosen,
            "reward": reward_name(task),
            "images": str(task.images),
            "upscale": list(task_factors(task)),
            "tools": list(self.tools),
            "toolbox": self.toolbox_digest,
            "warm_start_minutes": self.settings.warm_start_minutes,
            "single_share": self.settings.single_share,
            "distortion": self.settings.distortion or "none",
            "distortion_share": self.settings.distortion_share,
            "seed": self.settings.seed,
            "init": self.settings.init or "none",
            "encoder": self.settings.encoder,
        }

    @property
    def share(self) -> float:
        budget = self.settings.budget
        used = self.steps / budget.steps if budget.steps else self.seconds / (60 * (budget.minutes or 1))
        return min(1.0, used)

    @property
    def done(self) -> bool:
        return self.share >= 1

    def save(self, model: BaseAlgorithm) -> None:
        state = {
            "identity": self.identity,
            "policy": model.policy.state_dict(),
            "optimizer": model.policy.optimizer.state_dict(),
            "steps": self.steps,
            "seconds": self.seconds,
            "best_gain": self.best_gain,
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomically(self.path, buffer.getvalue())

    def resume(self, model: BaseAlgorithm) -> None:
        if not self.path.exists():
            return
        try:
            state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
            for name, value in self.identity.items():
                before = state["identity"].get(name, _BEFORE_THERE_WAS.get(name))
                if before != value:
                    raise PolicyError(
                        f"{self.path}: was made with {name} {before}, not {value}; delete it to start anew"
                    )
            model.policy.load_state_dict(state["policy"])
            model.policy.optimizer.load_state_dict(state["optimizer"])
            self.steps, self.seconds = int(state["steps"]), float(state["seconds"])
            self.best_gain = float(state["best_gain"])
        except PolicyError:
            raise
        except Exception as error:  # a damaged file makes torch raise nearly anything
            name = type(error).__name__
            raise PolicyError(f"{self.path}: damaged or of another toolbox ({name}); delete it to start anew") from None
        model.num_timesteps = self.steps

    @property
    def best_path(self) -> Path:
        return self.settings.out / "agent.safetensors"

    def keep_best(self, agent: RecurrentAgent, played: EpisodeResults) -> None:
        """Write the agent, with how it came to be, if no agent before it had a higher return in validation."""
        if played.value < self.best_gain and self.best_path.exists():
            return
        self.best_gain = played.value
        agent.recipe = {
            "algorithm": self.settings.algorithm.name if self.steps else WARM_START,
            **asdict(self.settings.algorithm),
            "steps": self.steps,
            "seconds": round(self.seconds, 1),
            "seed": self.settings.seed,
            "severity": self.settings.task.severity,
            "saturation_prob": self.settings.task.saturation_prob,
            "upscale": list(task_factors(self.settings.task)),
            "reward": reward_name(self.settings.task),
            "max_steps": self.settings.task.max_steps,
            "cost_weight": self.settings.task.cost_weight,
            "init": self.settings.init or "none",
            "encoder": agent.extractor.encoder,
            "warm_start_minutes": self.settings.warm_start_minutes,
            "single_share": self.settings.single_share,
            "distortion": self.settings.distortion or "none",
            "distortion_share": self.settings.distortion_share,
            "precision": self.settings.precision,
            "validation_gain_db": round(played.gain, 3),
            "validation_return": round(played.value, 4),
            "version": source_version(),
        }
        save_policy(agent, self.best_path)


class _Budgeted(BaseCallback):
    """Ends a run by its budget; validates, reports and keeps checkpoints on the way."""

    def __init__(self, run: _Run, task: Task, report: Callable[[AgentProgress], None]) -> None:
        super().__init__()
        self._run, self._task, self._report = run, task, report
        self._starts = draw_starts(task, VALIDATION_EPISODES, seed=run.settings.seed + 1_000_003)
        self._validation_gain = float("nan")
        self._before, self._began = run.seconds, time.monotonic()
        self._saved = -float("inf")

    def _on_step(self) -> bool:
        self._report(self._progress())
        return not self._run.done  # false at the first step after the last update, which does not count

    def _on_rollout_end(self) -> None:
        self._run.steps = self.num_timesteps

    def _on_rollout_start(self) -> None:
        now = time.monotonic()
        self._run.seconds = self._before + now - self._began
        self._run.rollout_share = self._run.share
        if now - self._saved > CHECKPOINT_SECONDS:
            self._saved = now
            self.validated()
            self._run.save(self.model)

    def validated(self) -> AgentProgress:
        """Play the validation episodes and return the progress with what they came to."""
        agent = restore_policy(self.model).to_agent(self._run.tools)
        played = play(agent, self._task, self._starts)
        self._validation_gain = played.value
        self.logger.record("validation/gain_db", played.gain)
        self.logger.record("validation/return", played.value)
        self.logger.dump(self.num_timesteps)
        self._run.keep_best(agent, played)
        return self._progress()

    def _progress(self) -> AgentProgress:
        episodes = self.model.ep_info_buffer
        gain = float(np.mean([episode["r"] for episode in episodes])) if episodes else float("nan")
        return AgentProgress(self._run.steps, self._run.share, gain, self._validation_gain)
