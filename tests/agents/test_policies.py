"""Heuristics, oracles, and playing episodes with them."""

from __future__ import annotations

import itertools
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents.policies.heuristics import FixedChain, RandomPolicy, best_chains
from agents.policies.oracles import ExhaustiveOracle, GreedyOracle, Oracle, search
from agents.rollout import draw_starts, play
from agents.sb3_env import RestoreVecEnv
from restore_env import FunctionTool, ImageRestoreEnv, ImageRestoreVectorEnv, Task, Toolbox
from restore_env.episodes.batch import EpisodeBatch
from restore_env.policy import Policy
from tests.support.toolkit import photographs, pixelwise_toolbox, random_agent


def shifts() -> Toolbox:
    """Tools that move all pixels by so much: the best chain is that whose sum undoes the damage."""
    return Toolbox(
        [
            FunctionTool("down", lambda images: images - 0.3),
            FunctionTool("up", lambda images: images + 0.1),
            FunctionTool("more", lambda images: images + 0.25),
        ]
    )


def damaged(*offsets: float) -> dict[str, Any]:
    targets = [np.full((40, 40, 3), 0.5, np.float32) for _ in offsets]
    return {
        "distorted": [target + np.float32(by) for target, by in zip(targets, offsets, strict=True)],
        "target": targets,
    }


def vector_env(n: int, **arguments: Any) -> ImageRestoreVectorEnv:
    chosen: dict[str, Any] = {"toolbox": shifts(), "patch_size": 40, "dtype": "float32"} | arguments
    return ImageRestoreVectorEnv(n, photographs(1), autoreset_mode="Disabled", **chosen)


def chains_of(env: ImageRestoreVectorEnv, oracle: Oracle, options: dict[str, Any]) -> list[tuple[str, ...]]:
    observation, _ = env.reset(options=options)
    while not env.episodes.over.all():
        actions, _ = oracle.predict(observation)
        env.episodes.step(np.flatnonzero(~env.episodes.over), actions[~env.episodes.over])
        observation = env.episodes.observe(np.arange(env.num_envs))
    return [tuple(env.toolbox.name(action) for action in chain) for chain in env.episodes.actions]


def moderate(**arguments: Any) -> Task:
    chosen: dict[str, Any] = {"images": photographs(), "toolbox": pixelwise_toolbox(), "patch_size": 40} | arguments
    return Task(**chosen)


def test_the_greedy_oracle_takes_what_pays_most_and_stops_when_nothing_pays() -> None:
    env = vector_env(3)
    chains = chains_of(env, GreedyOracle.of(env), damaged(-0.1, 0.31, 0.0))
    assert chains == [("up", "stop"), ("down", "stop"), ("stop",)]


def test_greed_misses_what_trying_every_chain_finds() -> None:
    """0.05 too bright: any one tool harms, but 0.25 up and 0.3 down together are right."""
    env = vector_env(1)
    assert chains_of(env, GreedyOracle.of(env), damaged(0.05)) == [("stop",)]
    found = chains_of(env, ExhaustiveOracle.of(env), damaged(0.05))
    assert [sorted(chain) for chain in found] == [sorted(("more", "down", "stop"))]
    assert chains_of(env, ExhaustiveOracle.of(env, depth=1), damaged(0.05)) == [("stop",)]


@pytest.mark.parametrize("arguments", [{}, {"cost_weight": 500.0}, {"stop_if_worse": True}, {"reward": "ssim"}])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_search_finds_what_playing_every_chain_finds(depth: int, arguments: dict[str, Any]) -> None:
    task = moderate(**arguments)
    starts = draw_starts(task, 7, seed=2)  # more than are searched at a time with this toolbox and depth 2
    lengths = range(depth + 1)
    chains = [chain for length in lengths for chain in itertools.product(range(3), repeat=length)]
    returns = np.array([play(FixedChain(chain, 3), task, starts).returns for chain in chains])
    played = play(ExhaustiveOracle(depth), task, starts)
    np.testing.assert_allclose(played.returns, returns.max(axis=0), atol=1e-9)


def test_a_search_changes_nothing_and_goes_on_from_where_an_episode_stands() -> None:
    env = vector_env(2)
    env.reset(options=damaged(-0.2, 0.05))
    env.episodes.step(np.arange(2), np.array([1, 2]))
    before = [env.episodes.working_image(slot) for slot in range(2)]
    values, chains = search(env.episodes, np.arange(2), depth=2)
    assert chains == [(1,), (0,)]
    assert values.min() > 20
    assert [len(actions) for actions in env.episodes.actions] == [1, 1]
    for slot in range(2):
        np.testing.assert_array_equal(env.episodes.working_image(slot), before[slot])


def test_an_episode_that_left_the_plan_is_planned_anew() -> None:
    env = vector_env(1)
    oracle = ExhaustiveOracle.of(env)
    observation, _ = env.reset(options=damaged(0.05))
    oracle.predict(observation)
    env.step(np.array([1]))  # up, which was not the plan: now 0.15 too bright
    actions, _ = oracle.predict(env.episodes.observe(np.arange(1)))
    env.step(actions)
    actions, _ = oracle.predict(env.episodes.observe(np.arange(1)))
    names = [env.toolbox.name(action) for action in [*env.episodes.actions[0], *actions]]
    assert (names[0], sorted(names[1:])) == ("up", ["down", "up"])


def test_super_resolvers_are_tried_where_they_fit() -> None:
    task = moderate(toolbox=pixelwise_toolbox(super_resolver=True), upscale=(1, 4), images=photographs(2, 280, 300))
    starts = draw_starts(task, 8, seed=0)
    greedy, exhaustive = (play(oracle, task, starts) for oracle in (GreedyOracle(), ExhaustiveOracle(2)))
    factors = np.array([start.factor for start in starts])
    assert set(factors) == {1, 4}
    for played in (greedy, exhaustive):
        assert all(3 not in actions for actions, factor in zip(played.actions, factors, strict=True) if factor == 1)
        np.testing.assert_allclose(played.returns, played.psnr - played.initial_psnr, atol=1e-9)
    assert (exhaustive.returns >= -1e-9).all()


def test_an_exploring_oracle_that_never_stops() -> None:
    task = moderate()
    episodes, starts = EpisodeBatch(task, 32), draw_starts(task, 32, seed=1)
    slots = np.arange(32)
    episodes.reset(slots, starts)
    oracle = GreedyOracle(explore=0.5, stops=False)
    chosen = oracle.choose(episodes, slots)
    best = oracle.rewards[:, :-1].argmax(axis=1)
    assert oracle.rewards.shape == (32, 4)
    assert (chosen < 3).all()
    assert 8 <= int((chosen == best).sum()) < 32
    np.testing.assert_allclose(episodes.step(slots, chosen), oracle.rewards[slots, chosen], atol=1e-9)


def test_oracles_play_every_kind_of_environment() -> None:
    arguments: dict[str, Any] = {"images": photographs(1), "toolbox": shifts(), "patch_size": 40, "dtype": "float32"}
    single = gym.make("ImageRestore-v0", **arguments)
    pair = {key: values[0] for key, values in damaged(-0.1).items()}
    observation, _ = single.reset(options=pair)
    action, _ = GreedyOracle.of(single).predict(observation)
    assert (np.shape(action), int(action)) == ((), 1)
    assert float(single.step(action)[1]) > 20
    sb3 = RestoreVecEnv(2, **arguments)
    actions, _ = GreedyOracle.of(sb3).predict(sb3.reset())
    rewards = sb3.step(actions)[1]
    assert (rewards >= 0).all()
    single.close()
    sb3.close()


def test_an_unbound_oracle_says_so() -> None:
    env = vector_env(2)
    observation, _ = env.reset(options=damaged(0.1, 0.1))
    with pytest.raises(ValueError, match="must be bound to the 2 episodes that it plays; it is bound to none"):
        GreedyOracle().predict(observation)
    oracle = GreedyOracle.of(vector_env(3))
    with pytest.raises(ValueError, match="the 2 episodes that it plays; it is bound to 3"):
        oracle.predict(observation)


def test_no_chain_stops_at_once() -> None:
    task = moderate()
    played = play(FixedChain((), 3), task, draw_starts(task, 5, seed=0))
    assert played.actions == ((3,),) * 5
    assert played.gain == 0
    assert FixedChain((), 3).named(pixelwise_toolbox()) == "stop"
    assert FixedChain((1, 2), 3).named(pixelwise_toolbox()) == "dim -> invert"


def test_playing_equals_the_environment_step_for_step() -> None:
    starts = draw_starts(moderate(), 70, seed=1)
    played = play(FixedChain((1, 0), stop=3), moderate(), starts)
    env = ImageRestoreEnv(images=photographs(), toolbox=pixelwise_toolbox(), patch_size=40)
    for index in (0, 63, 64, 69):  # both sides of a batch's border
        env.reset(options={"episode_seed": starts[index].seed})
        rewards = [env.step(np.int64(action))[1] for action in (1, 0, 3)]
        assert played.returns[index] == pytest.approx(sum(rewards), abs=1e-9)
        assert played.actions[index] == (1, 0, 3)
    assert played.gain == pytest.approx(float(played.returns.mean()), abs=1e-9)


def test_starts_depend_on_the_seed_alone() -> None:
    one, two, other = draw_starts(moderate(), 3, 1), draw_starts(moderate(), 3, 1), draw_starts(moderate(), 3, 2)
    assert all(np.array_equal(a.distorted, b.distorted) for a, b in zip(one, two, strict=True))
    assert not np.array_equal(one[0].distorted, other[0].distorted)


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
