"""Training and comparison of agents from scratch, on tiny level sets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from agents.intervals import interquartile_mean
from agents.sb3_env import RestoreVecEnv
from benchmarks.agents import __main__ as benchmark
from benchmarks.agents import reference, runs
from benchmarks.agents.algorithms import ALGORITHMS, FLAT, SEPARATE, Algorithm
from benchmarks.agents.training import Setting, Standardizer, TrainingEnv, digest, reinforce
from restore_env.episodes.spectrum import COMPACT_SIZE, transposed_places
from restore_env.levels.building import build_levels
from restore_env.levels.optima import optima
from restore_env.levels.store import open_levels
from tests.support.level_sets import level_task, small_levels

pytestmark = pytest.mark.usefixtures("one_thread")

FEW = {"batch_size": 32, "learning_starts": 16, "buffer_size": 1000, "n_steps": 4}
RANDOM_RUNS = 3


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Paths of a level set to train on, and of one to evaluate on."""
    folders = [tmp_path_factory.mktemp(part) for part in ("train", "test")]
    train, test = (str(small_levels(folder, depth=2, seed=number)) for number, folder in enumerate(folders))
    return train, test


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Smaller networks' batches, so that few steps train."""
    monkeypatch.setattr(runs, "ALGORITHMS", {name: smaller(row) for name, row in ALGORITHMS.items()})
    monkeypatch.setattr(reference, "RECIPE", {**reference.RECIPE, "steps": 4, "batch_size": 2})
    make, _ = reference.UNTRAINED["random"]
    monkeypatch.setattr(reference, "UNTRAINED", {**reference.UNTRAINED, "random": (make, RANDOM_RUNS)})


def smaller(row: Algorithm) -> Algorithm:
    """An algorithm that trains in few steps."""
    few = {name: value for name, value in FEW.items() if name in row.arguments}
    return replace(row, arguments={**row.arguments, **few}, envs=8, share=1)


@pytest.mark.usefixtures("small")
class TestBenchmark:
    @pytest.fixture
    def command(self, sets: tuple[str, str], tmp_path: Path) -> list[str]:
        """The arguments of a benchmark of two algorithms."""
        files = ["--runs", str(tmp_path / "runs"), "--json", str(tmp_path / "all.json")]
        few = ["--steps", "64", "--jobs", "1", "--seeds", "2"]
        return [*sets, *files, *few, "--algorithms", "imitation", "ppo", "dqn"]

    def test_the_table_has_every_policy_between_its_bounds(
        self, command: list[str], sets: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        figure = tmp_path / "curves.svg"
        assert benchmark.main([*command, "--figure", str(figure)]) == 0
        assert figure.stat().st_size > 0
        lines = capsys.readouterr().out.splitlines()
        titles = [line.split(" | ")[0].removeprefix("| ") for line in lines if line.startswith("| ")][2:]
        before, after = ["random", "best constant chain"], ["imitation", "greedy oracle", "best chain"]
        assert titles == [*before, "PPO", "DQN", *after]
        written = json.loads((tmp_path / "all.json").read_text())["runs"]
        best = optima(open_levels(sets[1]), 2)
        assert written["best chain"][0]["mean"] == pytest.approx(best.best_return.mean())
        assert written["best chain"][0]["score"] == pytest.approx(1)
        assert all(run["score"] <= 1 + 1e-9 for own in written.values() for run in own)
        assert written["best constant chain"][0]["score"] <= 1e-9
        assert written["greedy oracle"][0]["worse"] == 0
        assert {title: len(own) for title, own in written.items()} == {
            **dict.fromkeys(titles, 1),
            **dict.fromkeys(("PPO", "DQN", "imitation"), 2),
            "random": RANDOM_RUNS,
        }
        for run in written["PPO"] + written["DQN"]:
            assert run["curve"][-1] == [run["env_steps"], run["score"]]
            assert run["env_steps"] >= 64
            steps = [step for step, _ in run["curve"]]
            assert steps == sorted(set(steps))

    def test_only_what_is_missing_is_trained(
        self, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert benchmark.main(command) == 0
        first = json.loads((tmp_path / "all.json").read_text())["runs"]
        trained: list[tuple[str, int]] = []

        def counted(setting: Setting, name: str, seed: int) -> Any:
            trained.append((name, seed))
            return train(setting, name, seed)

        train = runs.train
        monkeypatch.setattr(runs, "train", counted)
        files = sorted((tmp_path / "runs").iterdir())
        assert len(files) == 6
        files[0].write_text("damaged")  # dqn, seed 0
        files[-1].unlink()  # ppo, seed 1
        capsys.readouterr()
        assert benchmark.main(command) == 0
        assert trained == [("dqn", 0), ("ppo", 1)]
        assert "4 of 6 runs are kept" in capsys.readouterr().err
        again = json.loads((tmp_path / "all.json").read_text())["runs"]
        for title, own in first.items():
            for one, other in zip(own, again[title], strict=True):
                assert {**one, "seconds": 0} == {**other, "seconds": 0}

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (["--algorithms", "ppo", "sarsa"], "unknown algorithm 'sarsa': choose from ppo, "),
            (["--algorithms", "pixels"], "nothing to train: the level sets hold no pixels"),
            (["--figure", "curves.txt"], "curves.txt: a figure ends in"),
        ],
    )
    def test_mistakes_are_told_in_one_line(
        self, command: list[str], changes: list[str], message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert benchmark.main([*command, *changes]) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]

    def test_level_sets_must_belong_together(
        self, sets: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        shallow = str(small_levels(tmp_path / "shallow", depth=1, count=2))
        for given, message in (
            ((sets[0], str(tmp_path / "none")), "none: no level set"),
            ((sets[0], shallow), "different depths"),
            ((sets[0], "pure-test"), "different tools"),
            ((sets[0],), "give two level sets"),
        ):
            assert benchmark.main([*given, "--runs", str(tmp_path / "runs")]) == 2
            err = capsys.readouterr().err
            assert err.count("\n") == 1
            assert message in err

    def test_an_error_in_a_training_says_which(
        self, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def fail(*_: Any) -> None:
            raise ValueError("no such thing")

        monkeypatch.setattr(runs, "train", fail)
        assert benchmark.main(command) == 2
        assert "ppo, seed 0: no such thing" in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if name != "pixels"])
def test_every_algorithm_trains(name: str, sets: tuple[str, str]) -> None:
    run = reinforce(smaller(ALGORITHMS[name]), Setting(*sets, steps=64, points=2), 0)
    assert len(run.curve) == 2
    assert run.score <= 1 + 1e-9


def test_the_published_policy_trains_on_pixels(tmp_path: Path) -> None:
    levels = str(tmp_path / "levels")
    build_levels(replace(level_task(), patch_size=63), levels, depth=1, pixels=True, count=2)
    row = replace(ALGORITHMS["pixels"], envs=2, share=1, arguments={"n_steps": 2, "learning_rate": 1e-3})
    run = reinforce(row, Setting(levels, levels, steps=4, points=1), 0)
    assert run.curve == ((4, run.score),)


def test_other_hyperparameters_or_levels_are_other_runs(sets: tuple[str, str]) -> None:
    setting, row = Setting(*sets, steps=10), ALGORITHMS["ppo"]
    other = replace(row, arguments={**row.arguments, "gamma": 0.5})
    marks = [
        digest(setting, row),
        digest(setting, other),
        digest(replace(setting, steps=11), row),
        digest(Setting(*sets[::-1], steps=10), row),
    ]
    assert len(set(marks)) == len(marks)
    assert digest(setting, replace(row)) == marks[0]


class TestTrainingEnv:
    def test_observations_are_standardized_and_the_rest_stays(self, sets: tuple[str, str]) -> None:
        levels = open_levels(sets[0])
        flat, separate = (RestoreVecEnv(8, levels=sets[0], **observed) for observed in (FLAT, SEPARATE))
        raw = flat.reset()
        assert isinstance(raw, np.ndarray)
        given = Standardizer(levels, FLAT)(raw)
        np.testing.assert_array_equal(given[:, COMPACT_SIZE:], raw[:, COMPACT_SIZE:])
        nested = separate.reset()
        assert isinstance(nested, dict)
        fitted_to = Standardizer(levels, SEPARATE)
        again = fitted_to({"spectrum": raw[:, :COMPACT_SIZE], "last_action": nested["last_action"]})
        np.testing.assert_allclose(again["spectrum"], given[:, :COMPACT_SIZE])
        restored = again["spectrum"] * fitted_to.deviation + fitted_to.mean
        np.testing.assert_allclose(restored, raw[:, :COMPACT_SIZE], atol=1e-4)
        assert again["last_action"] is nested["last_action"]

    def test_noise_changes_the_compact_numbers_alone_and_rewards_have_a_floor(self, sets: tuple[str, str]) -> None:
        made = []
        for noise in (0.0, 0.5):
            env = RestoreVecEnv(32, levels=sets[0], **FLAT)
            env.seed(0)
            row = replace(ALGORITHMS["ppo"], noise=noise, floor=-0.25, transposed=False)
            made.append(TrainingEnv(env, Standardizer(open_levels(sets[0]), FLAT), row, seed=0))
        exact, noisy = (np.asarray(env.reset()) for env in made)
        np.testing.assert_array_equal(exact[:, COMPACT_SIZE:], noisy[:, COMPACT_SIZE:])
        assert np.std((noisy - exact)[:, :COMPACT_SIZE]) == pytest.approx(0.5, rel=0.05)
        rewards = np.concatenate([made[0].step(np.arange(32) % 5)[1] for _ in range(4)])
        assert rewards.min() == -0.25
        assert rewards.max() > 0

    def test_in_half_of_the_episodes_patches_are_transposed_from_start_to_end(self, sets: tuple[str, str]) -> None:
        def seen(transposed: bool) -> tuple[npt.NDArray[Any], npt.NDArray[Any], list[Any]]:
            env = RestoreVecEnv(32, levels=sets[0], **FLAT)
            env.seed(0)
            fitted_to = Standardizer(open_levels(sets[0]), FLAT)
            fitted_to.mean, fitted_to.deviation = np.float32(0), np.float32(1)
            made = TrainingEnv(env, fitted_to, replace(ALGORITHMS["ppo"], noise=0.0, transposed=transposed), seed=0)
            first = np.asarray(made.reset())
            second, _, _, infos = made.step(np.where(np.arange(32) < 16, 0, made.action_space.n - 1))  # type: ignore[attr-defined]
            return first, np.asarray(second), [info.get("terminal_observation") for info in infos]

        places = np.concatenate([transposed_places(), np.arange(COMPACT_SIZE, seen(False)[0].shape[1])])
        turned = [
            (one[:, places] == other).all(axis=1) for one, other in zip(seen(False)[:2], seen(True)[:2], strict=True)
        ]
        assert 8 <= turned[0].sum() <= 24
        assert (turned[0] == turned[1])[:16].all()  # the same episodes
        assert (turned[0] != turned[1])[16:].any()  # others, after "stop"
        for was, plain, other in zip(turned[0][16:], seen(False)[2][16:], seen(True)[2][16:], strict=True):
            assert ((plain[places] if was else plain) == other).all()


class TestInterquartileMean:
    def test_it_is_the_mean_without_a_quarter_at_both_ends(self) -> None:
        assert interquartile_mean(np.array([9.0, 1.0, 2.0, 3.0, -50.0])).mean == 2  # of 1, 2, 3
        assert interquartile_mean(np.array([4.0, 8.0, 6.0])).mean == 6  # too few: of all
        eight = np.array([[1.0, 100.0], [2.0, 10.0], [3.0, 20.0], [-7.0, 30.0]])  # two tasks: of 2, 3, 10, 20
        assert interquartile_mean(eight).mean == 8.75

    def test_the_interval_is_of_other_runs(self) -> None:
        one = interquartile_mean(np.array([0.3]))
        assert (one.low, one.mean, one.high) == (0.3, 0.3, 0.3)
        many = np.random.default_rng(0).normal(1.0, 0.5, 400)
        narrow, wide = interquartile_mean(many), interquartile_mean(many[:8])
        assert narrow.low < narrow.mean < narrow.high
        assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)
        with pytest.raises(ValueError, match="no scores"):
            interquartile_mean(np.zeros((0, 3)))

    def test_runs_are_resampled_within_each_task(self) -> None:
        tasks = np.stack([np.full(4, 0.0), np.full(4, 1.0)], axis=1)
        given = interquartile_mean(tasks)
        assert (given.low, given.mean, given.high) == (0.5, 0.5, 0.5)
