"""Warm starts of agents by imitation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from agents.agent import RecurrentAgent
from agents.imitation.imitation import ImitationTraining
from agents.imitation.warm_start import warm_start
from restore_env.task import Task
from restore_env.toolbox import FunctionTool, Toolbox, bicubic_upscale
from tests.support.toolkit import photographs


def task_of(toolbox: Toolbox, **arguments: Any) -> Task:
    return Task(images=photographs(), severity="any", toolbox=toolbox, **arguments)


def gentle() -> Toolbox:
    """A clear best choice in either task: a tool that undoes the damage, and a super-resolver that beats bicubic."""

    def upscale(images: torch.Tensor) -> torch.Tensor:
        return bicubic_upscale(images).clamp(0.2, 0.8)

    return Toolbox(
        [
            FunctionTool("up", lambda images: images + 0.2),
            FunctionTool("down", lambda images: images - 0.2),
            FunctionTool("four", upscale, scale=4),
        ]
    )


@pytest.mark.parametrize(("kind", "reward"), [("logits", "tests.support.toolkit:softened"), ("q", "psnr")])
def test_a_warm_start_copes_with_both_tasks_and_any_reward(
    tmp_path: Path, kind: Any, reward: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.imitation.warm_start.LEVELS", 6)
    torch.manual_seed(0)
    agent = RecurrentAgent(gentle().names, kind)
    before = agent.head.weight.clone()
    shares: list[float] = []
    warm_start(agent, task_of(gentle(), reward=reward), 0.2, 0, tmp_path, report=shares.append)
    assert not torch.equal(agent.head.weight, before)
    assert all(bool(torch.isfinite(parameter).all()) for parameter in agent.parameters())
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_a_warm_start_goes_on_with_its_levels_and_the_price_of_computation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.imitation.warm_start.LEVELS", 6)
    told: list[ImitationTraining] = []

    def stop(settings: ImitationTraining, *_: Any) -> None:
        told.append(settings)
        if len(told) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr("agents.imitation.warm_start.train_imitation", stop)
    agent, task = RecurrentAgent(gentle().names, "q"), task_of(gentle(), cost_weight=0.5)
    with pytest.raises(KeyboardInterrupt):
        warm_start(agent, task, 0.2, 0, tmp_path)
    monkeypatch.delattr("agents.imitation.warm_start.build_levels")
    warm_start(agent, task, 0.2, 0, tmp_path)
    assert told[0].levels == told[1].levels
    assert told[0].cost_weight == 0.5
