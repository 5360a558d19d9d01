from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from agents.policies.heuristics import FixedChain, RandomPolicy, best_chains
from agents.rollout import draw_starts, play
from restore_env import FunctionTool, ImageRestoreEnv, Task, Toolbox
from restore_env.policy import Policy
from tests.support.toolkit import photographs, pixelwise_toolbox, random_agent


def task() -> Task:
    return Task(images=photographs(), toolbox=pixelwise_toolbox(), patch_size=40)


def test_playing_equals_the_environment_step_for_step() -> None:
    starts = draw_starts(task(), 70, seed=1)
    played = play(FixedChain((1, 0), stop=3), task(), starts)
    env = ImageRestoreEnv(images=photographs(), toolbox=pixelwise_toolbox(), patch_size=40)
    for index in (0, 63, 64, 69):  # both sides of a batch's border
        env.reset(options={"episode_seed": starts[index].seed})
        rewards = [env.step(np.int64(action))[1] for action in (1, 0, 3)]
        assert played.returns[index] == pytest.approx(sum(rewards), abs=1e-9)
        assert played.actions[index] == (1, 0, 3)
    assert played.gain == pytest.approx(float(played.returns.mean()), abs=1e-9)


def test_starts_depend_on_the_seed_alone() -> None:
    one, two, other = draw_starts(task(), 3, 1), draw_starts(task(), 3, 1), draw_starts(task(), 3, 2)
    assert all(np.array_equal(a.degraded, b.degraded) for a, b in zip(one, two, strict=True))
    assert not np.array_equal(one[0].degraded, other[0].degraded)


@pytest.mark.parametrize("policy", [RandomPolicy(), FixedChain((1, 0), stop=3), random_agent(("a", "b", "c"))])
def test_a_policy_takes_a_single_observation(policy: Policy) -> None:
    env = ImageRestoreEnv(images=photographs(), toolbox=pixelwise_toolbox())
    observation, _ = env.reset(seed=0)
    state: Any = None
    for start in (True, False):
        batch = {key: np.asarray(value)[None] for key, value in observation.items()}
        expected, _ = policy.predict(batch, state, np.array([start]), deterministic=True)
        action, state = policy.predict(observation, state, np.array([start]), deterministic=True)
        assert np.ndim(action) == 0
        assert action == expected[0] or isinstance(policy, RandomPolicy)
        observation, *_ = env.step(np.int64(0))


def test_a_random_policy_keeps_to_the_mask_and_uses_all_of_it() -> None:
    mask = np.tile(np.array([1, 0, 1, 0, 1]), (400, 1))
    chosen, _ = RandomPolicy().predict({"action_mask": mask, "last_action": np.zeros(400)})
    assert set(chosen.tolist()) == {0, 2, 4}


def test_the_chain_search_finds_the_chain_that_undoes_the_damage() -> None:
    toolbox = Toolbox(
        [
            FunctionTool("half", lambda images: images / 2),
            FunctionTool("lift", lambda images: images + 0.2),
            FunctionTool("invert", lambda images: 1 - images),
        ]
    )
    targets = torch.rand(6, 3, 16, 16)
    images = (1 - targets - 0.2) * 2  # undone by: half, lift, invert
    best = best_chains(toolbox, images, targets, depth=3, beam=9)
    assert best[3][0] == (0, 1, 2)
    assert set(best) == {1, 2, 3}
