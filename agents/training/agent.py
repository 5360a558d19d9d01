"""Training of the recurrent agent with RecurrentPPO or DRQN, within a budget, resumable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecMonitor

from agents.agent import RecurrentAgent, load_policy, with_tools
from agents.features_extractor import AgentPolicy
from agents.imitation.warm_start import warm_start
from agents.policies.heuristics import best_constant_chain
from agents.rollout import play
from agents.sb3_env import RestoreVecEnv
from agents.training.algorithms import ALGORITHMS
from agents.training.run import VALIDATION_EPISODES, BudgetCallback, Run, ScalarWriter
from agents.training.settings import AgentProgress, AgentTraining, reward_name
from restore_env.compute.interruption import deferred_signals
from restore_env.compute.memory import retained_memory
from restore_env.extras import require_extra
from restore_env.resolve import task_factors, task_toolbox
from restore_env.sampling import EpisodeStart
from restore_env.task import Task
from restore_env.toolbox import FunctionTool, Tool, Toolbox
from tools_zoo.training.cards import write_card
from tools_zoo.training.curves import draw_run

METRIC_NAMES = {"psnr": "PSNR", "ssim": "SSIM", "perceptual": "perceptual quality (minus a distance of features)"}
"""The rewards' names in a model card."""
CARD = "README.md"
"""The model card, which is written last."""
_SEARCH_STARTS = 32
"""Validation starts on which the constant chain is searched for; it is played on all."""
_UNBOUNDED = 10**12  # steps; the budget ends a run, not SB3's count


@retained_memory()
def train_agent(
    settings: AgentTraining, report: Callable[[AgentProgress], None] = lambda _: None
) -> tuple[RecurrentAgent, AgentProgress]:
    """Train an agent, or resume from the checkpoint in ``out``; write the best in validation as ``agent.safetensors``.

    A run whose budget is in steps and that was killed ends, resumed, as one that was not. DRQN's replayed episodes are
    in the folder ``out/replay``.

    Raises:
        PolicyError: a checkpoint that is damaged or of other settings, or an ``init`` that does not fit the toolbox.
        MissingExtraError: a package of the extra ``train`` is not installed.
    """
    require_extra("train", "training")
    settings.out.mkdir(parents=True, exist_ok=True)
    task, toolbox, half = settings.task, task_toolbox(settings.task), settings.precision == "bf16"
    algorithm, hyperparameters = ALGORITHMS[settings.algorithm], settings.all_hyperparameters
    arguments = {name: getattr(task, name) for name in Task.__dataclass_fields__}
    arguments["toolbox"] = in_half_precision(toolbox) if half else toolbox
    environment = VecMonitor(RestoreVecEnv(hyperparameters["n_envs"], **arguments))
    run = Run(settings, toolbox)
    init = None if settings.init is None else load_policy(settings.init)
    if init is not None:
        init = with_tools(init, toolbox.names, settings.init)
    encoder = init.extractor.encoder if init is not None else settings.encoder
    model = algorithm.build(
        hyperparameters, environment, lambda: run.rollout_share, settings.seed, toolbox.device, encoder, half
    )
    policy = model.policy
    assert isinstance(policy, AgentPolicy)
    if init is not None:
        policy.load_agent(init)
    if settings.warm_start and not run.path.exists():
        agent = policy.to_agent(toolbox.names)
        warm_start(
            agent,
            task,
            settings.warm_start * 60,
            settings.seed,
            settings.out / "warm-start",
            report=lambda share: report(AgentProgress(0, 0.0, float("nan"), float("nan"), warm_start=share)),
            trained=init is not None,
        )
        policy.load_agent(agent)
        run.save(model)
    run.resume(model)
    if run.share >= 1 and run.best_path.exists() and (settings.out / CARD).exists():
        environment.close()
        return load_policy(run.best_path), AgentProgress(run.steps, 1.0, float("nan"), run.best_gain)
    run.go_on(model)
    model.set_logger(Logger(str(settings.out / "logs"), [ScalarWriter(settings.out / "logs")]))
    with deferred_signals() as interruption:
        callback = BudgetCallback(run, task, report, interruption)
        model.learn(_UNBOUNDED, callback, log_interval=algorithm.log_interval, reset_num_timesteps=False)
    environment.close()
    reward = reward_name(task)
    tag, label = ("gain_db", "gain, dB") if reward == "psnr" else ("return", f"return ({reward})")
    draw_run(run.path.with_suffix(".png"), settings.out / "logs", {f"validation/{tag}": "validation"}, label)
    agent = load_policy(run.best_path)
    remark = _remark(agent, settings, run.best_gain, callback.starts)
    _write_card(agent, settings, remark)
    return agent, replace(callback.progress(), validation_gain=run.best_gain, remark=remark)


def _remark(agent: RecurrentAgent, settings: AgentTraining, value: float, starts: Sequence[EpisodeStart]) -> str:
    """What the run did not beat on the validation starts, in one line: its own start, a constant chain."""
    task, toolbox = settings.task, task_toolbox(settings.task)
    chain = best_constant_chain(task, starts[:_SEARCH_STARTS])
    constant = play(chain, task, starts).value
    remarks = []
    if not agent.recipe["steps"]:
        remarks.append(f"reinforcement learning did not beat its start, {settings.start}, which is what was written")
    if value <= constant:
        remarks.append(f"{value:.2f} does not beat the constant chain {chain.named(toolbox)} with {constant:.2f}")
    return "Note: " + "; ".join(remarks) if remarks else ""


def _write_card(agent: RecurrentAgent, settings: AgentTraining, remark: str) -> None:
    reward = reward_name(settings.task)
    origin = ALGORITHMS[settings.algorithm].origin
    how = (f"{origin} after " if agent.recipe["steps"] else "") + settings.start
    sizes = " and ".join("of the same size" if factor == 1 else f"x{factor}" for factor in task_factors(settings.task))
    rows = "\n".join(f"| {name.replace('_', ' ')} | {value} |" for name, value in agent.recipe.items())
    text = f"""# An agent that composes toolchains

The recurrent policy of `agents/agent.py` (after RL-Restore: Yu et al., CVPR 2018) with the encoder
`{agent.extractor.encoder}` of `agents/encoders.py`, over the tools
{", ".join(agent.tools)}. Input: {agent.patch_size}x{agent.patch_size} RGB patches. Load with `agents.load_policy`.

Training: {how}. Task: `ImageRestore-v0` with mixed distortions of {settings.severity}
severity, {sizes}; the reward is the gain in {METRIC_NAMES.get(reward, reward)}. Validation: the mean return over
{VALIDATION_EPISODES} fixed episodes on the training photographs; the file has the agent with the best validation
("steps" says when that was). {remark and f"{remark}."}

| | |
|---|---|
{rows}

```
{settings.command}
```
"""
    write_card(settings.out / CARD, text)


def in_half_precision(toolbox: Toolbox) -> Toolbox:
    """The same tools, run in bf16: for training episodes; validation runs the tools as they are."""

    def halved(tool: Tool) -> FunctionTool:
        def run(images: torch.Tensor) -> torch.Tensor:
            with torch.autocast(toolbox.device.type, torch.bfloat16):
                return tool(images).float()

        return FunctionTool(tool.name, run, tool.scale, tool.macs_per_pixel, tool.receptive_radius)

    return Toolbox([halved(tool) for tool in toolbox], toolbox.device)
