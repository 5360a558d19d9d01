"""Agents in upscaling tasks."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents.agent import PolicyError, RecurrentAgent, save_policy, with_more_tools
from agents.encoders import ENCODERS
from agents.imitation.demonstrations import Demonstrations, demonstrate
from agents.imitation.imitation import SPREAD, imitate, learn_from_oracle
from agents.training.agent import train_agent
from agents.training.algorithms import AlgorithmName
from agents.training.settings import AgentTraining
from restore_env import FunctionTool, Task, Toolbox
from restore_env.toolbox import bicubic_upscale
from tests.support.toolkit import photographs, pixelwise_toolbox

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def few_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.imitation.demonstrations.EPISODES", 8)


NAMES = ("brighten", "dim", "invert", "nearest_x4")


def task(**arguments: Any) -> Task:
    chosen = {"images": photographs(), "toolbox": pixelwise_toolbox(super_resolver=True)}
    return Task(**{**chosen, **arguments})


def observation(n: int, actions: int, last_action: int) -> dict[str, Any]:
    images = np.random.default_rng(0).integers(0, 256, (n, 63, 63, 3), dtype=np.uint8)
    return {"image": images, "last_action": np.full(n, last_action), "action_mask": np.ones((n, actions), np.int8)}


@pytest.mark.parametrize("encoder", ENCODERS)
def test_an_agent_with_more_tools_keeps_the_scores_of_the_old_ones(encoder: Any) -> None:
    torch.manual_seed(0)
    agent = RecurrentAgent(("b", "a"), encoder=encoder).eval()
    larger = with_more_tools(agent, ("a", "new", "b", "newer"))
    assert larger.tools == ("a", "new", "b", "newer")
    state = other = None
    for last, theirs in ((3, 5), (0, 2), (1, 0)):  # none yet, b, a
        scores, state = agent.scores(observation(4, 3, last), state)
        more, other = larger.scores(observation(4, 5, theirs), other)
        np.testing.assert_allclose(more[:, [2, 0, 4]], scores, atol=1e-5)
        np.testing.assert_allclose(more[:, [1, 3]], scores[:, :2].mean(axis=1, keepdims=True).repeat(2, 1), atol=1e-5)
    with pytest.raises(PolicyError, match="trained with the tools b, a; the toolbox has a, c"):
        with_more_tools(agent, ("a", "c"))


def test_demonstrations_hold_what_super_resolvers_would_pay() -> None:
    demonstrations = demonstrate(task(upscale=(1, 4)), 1e-6, seed=0)
    upscaling = demonstrations.masks[:, 0, 3]
    assert set(upscaling.tolist()) == {True, False}
    assert (demonstrations.rewards[:, 0, 3] != 0)[upscaling].all()
    assert (demonstrations.rewards[..., 3][~demonstrations.masks[..., 3]] == 0).all()
    assert demonstrations.masks[:, :, :3].all()


def test_demonstrations_of_several_tasks_are_shared_out() -> None:
    """Pixels of black photographs tell which task an episode is of."""
    black = [np.zeros((80, 80, 3), np.uint8)]
    tasks = [
        task(images=black, upscale=(1,), severity="single"),
        task(images=black, upscale=(1,), distortion="tests.support.toolkit:inverted"),
    ]
    demonstrations = demonstrate(tasks[0], 0.5, seed=0, extra_tasks=[(tasks[1], 0.5)])
    inverted = (demonstrations.images[:, 0] == 255).all(axis=(1, 2, 3))
    assert 0.1 < inverted.mean() < 0.9
    assert demonstrate(tasks[0], 1e-6, seed=0, extra_tasks=[(tasks[1], 1.0)]).images[:, 0].min() == 255
    with pytest.raises(ValueError, match=r"must not exceed 1 together, got 1\.2"):
        demonstrate(tasks[0], 1e-6, seed=0, extra_tasks=[(tasks[1], 0.7), (tasks[1], 0.5)])


def test_the_spread_is_that_of_the_allowed_tools() -> None:
    masks = np.array([[[True, True, True, True], [True, True, False, True]]])
    rewards = np.array([[[1.0, 3.0, 5.0, 99.0], [2.0, 4.0, 77.0, 99.0]]], np.float32)
    demonstrations = Demonstrations(np.zeros((1, 2, 63, 63, 3), np.uint8), np.zeros((1, 2), np.int64), masks, rewards)
    assert demonstrations.reward_std == pytest.approx((np.std([1, 3, 5]) + np.std([2, 4])) / 2)


def test_small_rewards_teach_as_much_as_large_ones() -> None:
    demonstrations = demonstrate(task(upscale=(4,)), 1e-6, seed=1)
    states = []
    for factor in (1.0, 1e-3):
        torch.manual_seed(0)
        agent = RecurrentAgent(NAMES)
        scaled = dataclasses.replace(demonstrations, rewards=demonstrations.rewards * np.float32(factor))
        unit = scaled.reward_std / SPREAD
        imitate(agent, scaled, 1e-6, seed=0, unit=unit)  # a step
        states.append(agent.head.weight.clone())
    torch.testing.assert_close(*states)


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
def test_imitation_copes_with_both_tasks_and_any_reward(kind: Any, reward: str) -> None:
    torch.manual_seed(0)
    agent = RecurrentAgent(gentle().names, kind)
    before = agent.head.weight.clone()
    learn_from_oracle(agent, task(toolbox=gentle(), reward=reward), 0.5, seed=0, pretrained=True)
    assert not torch.equal(agent.head.weight, before)
    assert all(bool(torch.isfinite(parameter).all()) for parameter in agent.parameters())


ALGORITHMS: dict[AlgorithmName, dict[str, int]] = {
    "ppo": {"n_steps": 6, "batch_size": 12, "n_epochs": 1},
    "drqn": {"learning_starts": 8, "gradient_steps": 1, "batch_size": 4},
}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_training_starts_from_an_agent_without_super_resolvers(
    algorithm: AlgorithmName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.training.run.VALIDATION_EPISODES", 4)
    init = tmp_path / "small.safetensors"
    save_policy(RecurrentAgent(NAMES[:3]), init)
    settings = AgentTraining(
        out=tmp_path / "run",
        steps=24,
        images=photographs(),
        toolbox=pixelwise_toolbox(super_resolver=True),
        upscale=(1, 4),
        reward="tests.support.toolkit:softened",
        algorithm=algorithm,
        envs=4,
        hyperparameters=ALGORITHMS[algorithm],
        init=str(init),
        warm_start=0.01,
    )
    agent, progress = train_agent(settings)
    assert agent.tools == NAMES
    assert agent.recipe["upscale"] == [1, 4]
    assert agent.recipe["reward"] == "tests.support.toolkit:softened"
    assert agent.recipe["validation_return"] == pytest.approx(progress.validation_gain, abs=1e-3)
    card = (tmp_path / "run" / "README.md").read_text()
    assert "severity, of the same size and x4; the reward is the gain in tests.support.toolkit:softened" in card
    other = dataclasses.replace(settings, reward="ssim")
    with pytest.raises(PolicyError, match=r"reward tests\.support\.toolkit:softened, not ssim"):
        train_agent(other)
