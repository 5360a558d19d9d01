"""Episodes of a level set: equal to computed ones, with exact optima, whatever is stored and whatever is computed."""

from __future__ import annotations

import copy
import itertools
import multiprocessing
import pickle
import sqlite3
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.vector import AutoresetMode

from restore_env import EpisodeRecord, ImageRestoreEnv, ImageRestoreVectorEnv
from restore_env.episodes.batch import EpisodeBatch
from restore_env.levels.building import build_levels
from restore_env.levels.kept import KeptTransitions, Node
from restore_env.levels.store import DATABASE, LevelError, open_levels
from restore_env.metrics import psnr
from restore_env.sampling import EpisodeStart
from tests.support.level_sets import COUNT, TOOLBOX, level_task, small_levels


class InTurn:
    """Draws the starts of given seeds, one after the other, whatever it is asked for."""

    def __init__(self, sampler: Any, seeds: list[int]) -> None:
        self._sampler, self._seeds = sampler, itertools.cycle(seeds)

    def starts(self, chosen: list[Any]) -> list[EpisodeStart]:
        return [self._sampler.draw(next(self._seeds)) for _ in chosen]


def both(levels: Path, mode: AutoresetMode, **arguments: Any) -> list[ImageRestoreVectorEnv]:
    """Environments with and without the level set whose episodes begin with the same levels in turn."""
    seeds = open_levels(levels).arrays["seed"].tolist()
    arguments = {"max_steps": 3, "autoreset_mode": mode, **arguments}
    looked_up = ImageRestoreVectorEnv(3, levels=levels, toolbox=TOOLBOX, **arguments)
    computed = ImageRestoreVectorEnv(3, **{**vars(level_task()), **arguments})
    for env in (looked_up, computed):
        env._sampler = InTurn(env._sampler, seeds)  # type: ignore[assignment]
    return [looked_up, computed]


@pytest.mark.parametrize("observation", ["image", "spectrum", "both"])
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_equal_to_the_environment_without_a_level_set(levels: Path, mode: AutoresetMode, observation: str) -> None:
    early = observation == "both"
    envs = both(levels, mode, observation=observation, stop_if_worse=early, cost_weight=1e3, max_steps=4)
    rng = np.random.default_rng(0)
    results: list[Any] = [env.reset(seed=0) for env in envs]
    for _ in range(25):
        for result in results:
            infos = result[-1]
            for part in (infos, infos.get("final_info", {})):
                for key in ("level", "_level", "best_return", "_best_return"):
                    part.pop(key, None)
        assert data_equivalence(results[0], results[1], exact=True)
        actions = rng.integers(0, 5, 3)
        results = [env.step(actions) for env in envs]
        for look_ahead in (EpisodeBatch.one_step_rewards, lambda batch, slots: batch.quality(slots, psnr)):
            one, two = (look_ahead(env.episodes, np.arange(3)) for env in envs)
            np.testing.assert_allclose(one, two, atol=1e-9)


def test_equal_with_resets_by_mask(levels: Path) -> None:
    looked_up, computed = both(levels, AutoresetMode.DISABLED)
    for env in (looked_up, computed):
        env.reset(seed=0)
    for action in (0, 4, 1, 2):
        steps = [env.step(np.full(3, action)) for env in (looked_up, computed)]
        assert data_equivalence(steps[0][:3], steps[1][:3], exact=True)
        if steps[0][2].all():
            masks = {"reset_mask": np.ones(3, dtype=np.bool_)}
            one, two = (env.reset(options=masks)[0] for env in (looked_up, computed))
            assert data_equivalence(one, two, exact=True)


def test_the_checkers_pass_and_seeds_choose_levels(levels: Path) -> None:
    env = gym.make("ImageRestore-v0", levels=str(levels), toolbox=TOOLBOX, observation="spectrum", flatten=True)
    check_env(env.unwrapped)
    assert env.spec is not None
    assert str(levels) in env.spec.to_json()
    _, info = env.reset(options={"episode_seed": int(open_levels(levels).arrays["seed"][2])})
    assert info["level"] == 2
    seen = {env.reset(seed=seed)[1]["level"] for seed in range(40)}
    assert seen == set(range(COUNT))


@pytest.mark.parametrize("stop_if_worse", [False, True])
def test_every_chain_returns_what_the_optimum_says(levels: Path, stop_if_worse: bool) -> None:
    env = ImageRestoreEnv(levels=levels, max_steps=2, cost_weight=1.0, stop_if_worse=stop_if_worse)
    best = env.optima
    seeds = open_levels(levels).arrays["seed"].tolist()
    returns = np.full((COUNT, 5, 5), -np.inf)
    for level, first, second in itertools.product(range(COUNT), range(5), range(5)):
        _, info = env.reset(options={"episode_seed": seeds[level]})
        total, over = 0.0, False
        for action in (first, second):
            if not over:
                _, reward, over, _, info = env.step(np.int64(action))
                total += reward
        returns[level, first, second] = total
        assert info["best_return"] == best.best_return[level]
    np.testing.assert_allclose(best.best_return, returns.max((1, 2)), atol=1e-9)
    constant = returns.mean(0)
    assert best.constant_return.mean() == pytest.approx(constant.max())
    assert best.normalized(constant.max()) == pytest.approx(0, abs=1e-9)
    assert best.normalized(returns.max((1, 2)).mean()) == pytest.approx(1)
    for level, chain in enumerate(best.best_chain):
        padded = (*chain, 4, 4)[:2]
        assert returns[level][padded] == pytest.approx(best.best_return[level])


def test_what_was_computed_is_kept_for_the_next_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    levels = small_levels(tmp_path, depth=1)
    first = ImageRestoreEnv(levels=levels, toolbox=TOOLBOX, observation="spectrum", max_steps=3)
    actions = [0, 1, 2]

    def play(env: ImageRestoreEnv) -> list[Any]:
        env.reset(options={"episode_seed": int(open_levels(levels).arrays["seed"][0])})
        return [env.step(np.int64(action)) for action in actions]

    steps = play(first)
    monkeypatch.setattr("restore_env.levels.dynamics.LevelDynamics._computed", None)
    assert data_equivalence(
        steps, play(ImageRestoreEnv(levels=levels, toolbox=TOOLBOX, observation="spectrum", max_steps=3)), exact=True
    )
    with sqlite3.connect(levels / DATABASE) as database:
        assert database.execute("SELECT COUNT(*) FROM nodes").fetchone() == (2,)


@pytest.mark.parametrize("value", ["'text'", "x'00'", "NULL", "CAST(x'b9ff' AS TEXT)"])
def test_a_node_of_another_kind_is_one_line(value: str, tmp_path: Path) -> None:
    levels = small_levels(tmp_path, depth=0)
    for damaged in (False, True):
        env = ImageRestoreEnv(levels=levels, toolbox=TOOLBOX, observation="spectrum", max_steps=1)
        env.reset(options={"episode_seed": int(open_levels(levels).arrays["seed"][0])})
        if not damaged:
            env.step(np.int64(0))
            with sqlite3.connect(levels / DATABASE) as database:
                database.execute(f"UPDATE nodes SET spectrum = {value}")
            continue
        with pytest.raises(LevelError, match=r"\A.*transitions\.sqlite: .*delete it.*\Z"):
            env.step(np.int64(0))


def test_the_least_used_long_chains_leave_first(tmp_path: Path) -> None:
    kept = KeptTransitions(tmp_path / DATABASE, limit=3)
    node = Node(1.0, 2.0, b"s", b"")
    kept.keep([(0, (1,)), (0, (1, 2)), (1, (1, 2))], [node] * 3)
    assert kept.find([(0, (1, 2)), (5, ())]) == [node, None]
    kept.keep([(2, (3,))], [node])
    assert kept.find([(0, (1,)), (0, (1, 2)), (1, (1, 2)), (2, (3,))]) == [node, node, None, node]


def test_found_nodes_are_forgotten_when_they_are_too_many(levels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("restore_env.levels.dynamics.LIMIT", 2)
    envs = both(levels, AutoresetMode.SAME_STEP, observation="spectrum")
    rng = np.random.default_rng(1)
    for env in envs:
        env.reset(seed=0)
    for _ in range(20):
        actions = rng.integers(0, 4, 3)
        steps = [env.step(actions) for env in envs]
        assert data_equivalence(steps[0][:3], steps[1][:3], exact=True)
    assert len(envs[0].episodes.dynamics._chains) < 12  # type: ignore[attr-defined]


def restored(env: ImageRestoreEnv) -> ImageRestoreEnv:
    """Another environment in the same state."""
    other = ImageRestoreEnv(levels=env.task.levels, toolbox=TOOLBOX, observation="both", max_steps=3)
    other.restore_state(env.clone_state())
    return other


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env)), restored])
def test_forks_have_equal_futures(levels: Path, copied: Any) -> None:
    env = ImageRestoreEnv(levels=levels, toolbox=TOOLBOX, observation="both", max_steps=3)
    env.reset(seed=1)
    env.step(np.int64(0))
    env.step(np.int64(1))
    other = copied(env)
    for _ in range(2):
        assert data_equivalence(env.step(np.int64(2)), other.step(np.int64(2)), exact=True)
        assert data_equivalence(env.reset(), other.reset(), exact=True)


def test_an_episode_is_replayed_from_its_record(levels: Path) -> None:
    env = ImageRestoreEnv(levels=levels, toolbox=TOOLBOX, max_steps=3)
    env.reset(seed=5)
    for action in (0, 2):
        env.step(np.int64(action))
    record = env.record()
    assert record.omitted == ()
    assert EpisodeRecord.from_json(record.to_json()).validate().okay
    env.step(np.int64(1))
    again = EpisodeRecord.from_json(env.record().to_json())
    assert again.validate(trusted=True).okay


def play_at_random(levels: Path) -> list[float]:
    """Rewards of a random policy on a level set."""
    env = ImageRestoreVectorEnv(
        4, levels=levels, toolbox=TOOLBOX, observation="spectrum", autoreset_mode=AutoresetMode.SAME_STEP
    )
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    return [float(reward) for _ in range(12) for reward in env.step(rng.integers(0, 4, 4))[1]]


def test_several_processes_may_play_one_set_at_once(tmp_path: Path) -> None:
    levels = small_levels(tmp_path, depth=0)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        one, two = pool.map(play_at_random, [levels] * 2)
    assert one == two == play_at_random(levels)
    assert any(one)


def test_an_episode_has_the_depth_of_the_set_unless_told_otherwise(levels: Path) -> None:
    assert ImageRestoreEnv(levels=levels).task.max_steps == 2
    assert ImageRestoreEnv(levels=levels, max_steps=1).task.max_steps == 1


def test_a_relative_path_is_found_after_the_folder_changed(levels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(levels.parent)
    env = ImageRestoreEnv(levels=levels.name, toolbox=TOOLBOX, max_steps=3)
    env.reset(seed=0)
    monkeypatch.chdir("/")
    for _ in range(3):
        env.step(np.int64(1))


def test_a_state_of_another_task_is_refused(levels: Path) -> None:
    two, three = (ImageRestoreEnv(levels=levels, toolbox=TOOLBOX, max_steps=steps) for steps in (2, 3))
    two.reset(seed=0)
    with pytest.raises(ValueError, match="max_steps=2, this one has 3"):
        three.restore_state(two.clone_state())


def test_pictures_are_computed_again(levels: Path) -> None:
    env = ImageRestoreEnv(levels=levels, toolbox=TOOLBOX, max_steps=3)
    observation, _ = env.reset(seed=0)
    for action in (0, 2):
        observation, *_ = env.step(np.int64(action))
    size = env.task.patch_size
    image = env.episodes.working_image(0)
    top = (len(image) - size) // 2
    assert np.array_equal(observation["image"], image[top : top + size, top : top + size])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"severity": "mild"}, "computed with severity='any': leave 'severity' out"),
        ({"toolbox": "classic"}, "leave 'toolbox' out"),
        ({"dtype": "float32"}, "8 bits"),
    ],
)
def test_other_arguments_are_refused(levels: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(LevelError, match=message):
        ImageRestoreEnv(levels=levels, **arguments)


def test_a_pair_of_ones_own_is_refused(levels: Path) -> None:
    pixels = np.zeros((48, 48, 3), np.uint8)
    with pytest.raises(LevelError, match="own images"):
        ImageRestoreEnv(levels=levels).reset(options={"distorted": pixels, "target": pixels})


def test_patches_must_have_been_stored_to_be_observed(tmp_path: Path) -> None:
    with pytest.raises(LevelError, match="--pixels"):
        ImageRestoreEnv(levels=small_levels(tmp_path, depth=0), toolbox=TOOLBOX)


def test_other_weights_are_not_mixed_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = ImageRestoreEnv(levels=small_levels(tmp_path, depth=0), toolbox=TOOLBOX, observation="spectrum")
    env.reset(seed=0)
    monkeypatch.setattr("restore_env.levels.dynamics.fingerprint", lambda _: "another")
    with pytest.raises(LevelError, match="other weights"):
        env.step(np.int64(0))


def test_patches_are_kept_as_8_bits_whatever_is_observed(tmp_path: Path) -> None:
    levels = small_levels(tmp_path, depth=0, pixels=True)
    first = ImageRestoreEnv(levels=levels, toolbox=TOOLBOX, observation="spectrum", dtype="float32")
    second = ImageRestoreEnv(levels=levels, toolbox=TOOLBOX, observation="both")
    for env in (first, second):
        env.reset(seed=0)
    one, two = (env.step(np.int64(0))[0] for env in (first, second))
    assert np.array_equal(one["spectrum"], two["spectrum"])


def test_a_damaged_database_is_one_line(tmp_path: Path) -> None:
    levels = small_levels(tmp_path, depth=0)
    (levels / DATABASE).write_bytes(b"damaged" * 1000)
    env = ImageRestoreEnv(levels=levels, toolbox=TOOLBOX, observation="spectrum")
    env.reset(seed=0)
    with pytest.raises(LevelError, match="delete it"):
        env.step(np.int64(0))


def test_states_share_what_was_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "tiny.levels"
    open_levels(small_levels(tmp_path, depth=0)).pack(file)
    env = ImageRestoreEnv(levels=file, toolbox=TOOLBOX, observation="spectrum")
    env.reset(seed=0)
    env.step(np.int64(0))
    ahead = env.step(np.int64(1))
    monkeypatch.setattr("restore_env.levels.dynamics.LevelDynamics._computed", None)
    env.reset(seed=0)
    env.step(np.int64(0))
    state = env.clone_state()
    for _ in range(2):
        assert data_equivalence(env.step(np.int64(1)), ahead, exact=True)
        env.restore_state(state)


def test_starts_drawn_on_the_device(tmp_path: Path) -> None:
    task = replace(level_task(), draws="device")
    levels = build_levels(task, tmp_path / "set", count=COUNT, depth=1)
    looked_up = ImageRestoreVectorEnv(COUNT, levels=levels.path, toolbox=TOOLBOX, observation="spectrum", max_steps=3)
    computed = ImageRestoreVectorEnv(COUNT, **(vars(task) | {"observation": "spectrum"}))
    steps = []
    for env in (looked_up, computed):
        env.reset(options={"episode_seed": levels.arrays["seed"]})
        steps.append(env.step(np.arange(COUNT) % 4))
    assert data_equivalence(steps[0][:4], steps[1][:4], exact=True)
