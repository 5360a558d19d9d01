"""Evaluation of any policy: same starts, score between exact bounds, models of other libraries."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sb3_contrib
import stable_baselines3
from stable_baselines3.common.vec_env import VecNormalize

import agents
from agents.agent import PolicyError, RecurrentAgent
from agents.evaluation import evaluate
from agents.policies.heuristics import FixedChain, RandomPolicy
from agents.policies.oracles import ExhaustiveOracle, GreedyOracle
from agents.sb3_env import RestoreVecEnv
from restore_env.levels.optima import optima
from restore_env.levels.store import open_levels
from tests.support.level_sets import COUNT, small_levels
from tests.support.toolkit import photographs, pixelwise_toolbox

SPECTRUM: dict[str, Any] = {"observation": "spectrum", "flatten": True, "max_steps": 2}
IMAGES: dict[str, Any] = {"images": photographs(), "toolbox": pixelwise_toolbox(), "patch_size": 40}


@pytest.fixture(scope="module")
def levels(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(small_levels(tmp_path_factory.mktemp("levels"), depth=2))


class TestLevelSets:
    def test_bounds_are_0_and_1_and_every_level_is_played_once(self, levels: str) -> None:
        opened = open_levels(levels)
        best = optima(opened, 2)
        constant, optimum, greedy = (
            evaluate(policy, levels=levels, **SPECTRUM)
            for policy in (FixedChain(best.constant_chain, 4), ExhaustiveOracle(2), GreedyOracle())
        )
        assert constant.seeds.tolist() == opened.arrays["seed"].tolist()
        assert constant.score is not None
        assert optimum.score is not None
        assert constant.score.mean == pytest.approx(0, abs=1e-9)
        assert optimum.score.mean == pytest.approx(1)
        assert optimum.score.low == pytest.approx(optimum.score.high)
        np.testing.assert_allclose(optimum.returns, best.best_return)
        assert optimum.worse == evaluate(FixedChain((), 4), levels=levels, **SPECTRUM).worse == 0
        photographs_of = [opened.manifest.photographs[number] for number in opened.arrays["photograph"]]
        assert constant.results.images == tuple(photographs_of)
        assert greedy.mean.mean <= optimum.mean.mean + 1e-9
        gain = optimum.difference(constant)
        assert gain.mean == pytest.approx(optimum.mean.mean - constant.mean.mean)

    def test_a_price_is_not_counted_as_harm(self, levels: str) -> None:
        priced = evaluate(FixedChain((1,), 4), levels=levels, cost_weight=1e6, **SPECTRUM)
        free = evaluate(FixedChain((1,), 4), levels=levels, **SPECTRUM)
        assert priced.mean.mean < free.mean.mean
        assert priced.worse == free.worse > 0
        assert priced.gmacs == free.gmacs > 0
        assert priced.steps == 2

    @pytest.mark.parametrize("arguments", [{"cost_weight": 100.0}, {"episodes": 3, "seed": 1}])
    def test_bounds_are_those_of_the_price_and_of_the_levels(self, levels: str, arguments: dict[str, Any]) -> None:
        chain = optima(open_levels(levels), 2, arguments.get("cost_weight", 0)).constant_chain
        low, high = (
            evaluate(policy, levels=levels, **arguments, **SPECTRUM).score
            for policy in (FixedChain(chain, 4), ExhaustiveOracle(2))
        )
        assert low is not None
        assert high is not None
        assert (low.mean, high.mean) == pytest.approx((0, 1), abs=1e-6)

    @pytest.mark.parametrize("deterministic", [True, False])
    def test_a_policy_gets_whether_to_sample(self, levels: str, deterministic: bool) -> None:
        given = []

        def predict(observation: Any, state: Any, episode_start: Any, deterministic: bool) -> Any:
            given.append(deterministic)
            return np.zeros(len(observation), dtype=np.int64), None

        evaluate(SimpleNamespace(predict=predict), levels=levels, deterministic=deterministic, **SPECTRUM)
        assert given == [deterministic] * 2

    def test_a_policy_without_images_needs_no_argument(self) -> None:
        assert len(evaluate(FixedChain((6, 2), 12), levels="mixed-test", episodes=2).returns) == 2

    def test_two_lines_say_it_all(self, levels: str) -> None:
        first, second = str(evaluate(RandomPolicy(), levels=levels, **SPECTRUM)).splitlines()
        assert first.startswith(f"ImageRestore-v0, {COUNT} starts: return ")
        assert "] dB, score " in first
        assert all(word in second for word in ("% made worse", "steps", "GMAC"))

    def test_some_levels_are_drawn_once_each(self, levels: str) -> None:
        few = [evaluate(RandomPolicy(), levels=levels, episodes=3, seed=seed, **SPECTRUM) for seed in (0, 0, 1)]
        assert len({*few[0].seeds.tolist()}) == 3
        assert few[0].seeds.tolist() == few[1].seeds.tolist() != few[2].seeds.tolist()
        with pytest.raises(ValueError, match="5 levels, fewer than 6"):
            evaluate(RandomPolicy(), levels=levels, episodes=6)
        with pytest.raises(ValueError, match="same starts"):
            few[0].difference(few[2])


@pytest.mark.parametrize(
    ("algorithm", "policy"),
    [
        (stable_baselines3.PPO, "MlpPolicy"),
        (stable_baselines3.DQN, "MlpPolicy"),
        (sb3_contrib.MaskablePPO, "MlpPolicy"),
        (sb3_contrib.RecurrentPPO, "MlpLstmPolicy"),
    ],
)
def test_models_of_stable_baselines3_are_evaluated_as_in_the_environment(
    algorithm: Any, policy: str, levels: str
) -> None:
    env = RestoreVecEnv(2, levels=levels, **SPECTRUM)
    model = algorithm(policy, env, seed=0)
    result = evaluate(model, levels=levels, **SPECTRUM)
    single = RestoreVecEnv(1, levels=levels, **SPECTRUM)
    for seed, expected in zip(result.seeds.tolist(), result.returns.tolist(), strict=True):
        single.set_options({"episode_seed": seed})
        observation, state, total, over = single.reset(), None, 0.0, False
        while not over:
            masks = {"action_masks": single.vector_env.action_masks()} if "Maskable" in algorithm.__name__ else {}
            begins = np.array([state is None])
            actions, state = model.predict(observation, state, begins, deterministic=True, **masks)
            observation, rewards, dones, _ = single.step(actions)
            total, over = total + float(rewards[0]), bool(dones[0])
        assert total == pytest.approx(expected, abs=1e-4)
    if algorithm is sb3_contrib.MaskablePPO:
        assert all(3 not in chain[1:] for chain in result.results.actions if chain[0] == 3)


def test_observations_are_normalized_as_in_training(levels: str) -> None:
    env = VecNormalize(RestoreVecEnv(8, levels=levels, **SPECTRUM), norm_reward=False)
    model = stable_baselines3.PPO("MlpPolicy", env, n_steps=8, batch_size=64, seed=0).learn(64)
    by_hand = SimpleNamespace(
        predict=lambda observation, *rest: model.predict(env.normalize_obs(observation), *rest),
    )
    results = [evaluate(policy, levels=levels, **SPECTRUM).results.actions for policy in (model, by_hand)]
    assert results[0] == results[1]


class TestPhotographs:
    def test_the_starts_are_paired_and_there_is_no_score(self) -> None:
        results = [agents.evaluate(policy, episodes=4, **IMAGES) for policy in (RandomPolicy(), GreedyOracle())]
        assert results[0].seeds.tolist() == results[1].seeds.tolist()
        np.testing.assert_array_equal(results[0].results.initial_psnr, results[1].results.initial_psnr)
        assert results[0].score is None
        assert results[0].difference(results[1]).mean <= 0
        assert "score" not in str(results[0])

    def test_equal_seeds_of_another_task_are_not_the_same_starts(self) -> None:
        moderate, severe = (evaluate(FixedChain((), 3), episodes=2, severity=name, **IMAGES) for name in ("12", "20"))
        assert moderate.seeds.tolist() == severe.seeds.tolist()
        with pytest.raises(ValueError, match="same starts"):
            moderate.difference(severe)

    @pytest.mark.parametrize("episodes", [0, -1])
    def test_no_episodes_are_an_error(self, episodes: int) -> None:
        with pytest.raises(ValueError, match=f"one episode or more, got {episodes}"):
            evaluate(RandomPolicy(), episodes=episodes, **IMAGES)

    def test_a_policy_observes_what_it_needs(self) -> None:
        agent = RecurrentAgent(pixelwise_toolbox().names)
        arguments = {**IMAGES, "patch_size": 63}
        plain, flat = (evaluate(agent, episodes=2, **arguments, **more) for more in ({}, SPECTRUM | {"max_steps": 3}))
        np.testing.assert_array_equal(plain.returns, flat.returns)

    def test_a_policy_that_does_not_fit_is_an_error(self) -> None:
        with pytest.raises(PolicyError, match="was trained with the tools other; the toolbox has"):
            evaluate(RecurrentAgent(("other",)), episodes=2, **IMAGES)
        flat = {"observation": "spectrum", "flatten": True}
        model = stable_baselines3.PPO("MlpPolicy", RestoreVecEnv(1, **IMAGES, **flat))
        with pytest.raises(ValueError, match="trained with flatten=True: pass 'observation' and 'flatten'"):
            evaluate(model, episodes=2, **IMAGES)
        with pytest.raises(ValueError, match="the policy has 4 actions, the environment 13"):
            evaluate(model, "ImageRestoreMixedTest-v0")

    def test_variants_have_their_own_arguments(self) -> None:
        small = evaluate(FixedChain((), 3), "restore_env:ImageRestoreSameSize-v0", episodes=2, **IMAGES)
        assert small.returns.tolist() == [0, 0]
        priced, free = (
            evaluate(FixedChain((0,), 12), f"ImageRestore{name}-v0", episodes=2, images=photographs())
            for name in ("Priced", "SameSize")
        )
        np.testing.assert_allclose(free.returns - priced.returns, 0.5 * free.results.gmacs, rtol=1e-4)
        assert free.gmacs > 0
        with pytest.raises(ValueError, match="is no environment of this package"):
            evaluate(RandomPolicy(), None)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"choose from ImageRestore-v0, ImageRestoreSameSize-v0"):
            evaluate(RandomPolicy(), "CartPole-v1")
