"""The examples run, on tiny budgets, and stay short."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples import (
    cleanrl_ppo,
    compare_with_baseline,
    joint_training,
    mcts,
    own_tool_and_distortion,
    random_agent,
    train_sb3,
)
from restore_env.images.decoding import Photo
from restore_env.images.encoding import write_image
from restore_env.images.sources import embedded_paths, open_photo

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("[!_]*.py"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The option that names a folder of small photographs."""
    folder = tmp_path_factory.mktemp("photos")
    for path in embedded_paths()[1:3]:
        pixels = open_photo(path, path.name)[1].pixels
        write_image(folder / f"{path.stem}.png", Photo(pixels[:280, :280]))
    return ["--images", str(folder)]


def test_each_example_has_at_most_65_lines_that_are_not_blank() -> None:
    for path in EXAMPLES:
        limit = 200 if path.stem == "cleanrl_ppo" else 65
        assert len([line for line in path.read_text().splitlines() if line.strip()]) <= limit, path


def test_random_agent(images: list[str]) -> None:
    assert -30 < random_agent.main(["--episodes", "2", *images]) < 30


def test_own_tool_and_distortion(images: list[str]) -> None:
    gains = own_tool_and_distortion.main(["--episodes", "1", *images])
    assert len(gains) == 13
    assert "bilateral" in gains


def test_compare_with_baseline(images: list[str]) -> None:
    means = compare_with_baseline.main(["--patches", "2", *images])
    assert means["agent"] > means["input"]
    assert means["DnCNN-s"] > means["input"]


def test_train_sb3(images: list[str], tmp_path: Path) -> None:
    out = tmp_path / "policy.zip"
    train_sb3.main(["--steps", "4", "--envs", "2", "--rollout", "2", "--episodes", "2", "--out", str(out), *images])
    assert out.is_file()


def test_joint_training(images: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.training.run.VALIDATION_EPISODES", 4)
    tiny = ["--steps", "1", "--envs", "2", "--batch-size", "2"]
    tools = joint_training.main([*tiny, "--out", str(tmp_path / "run"), *images])
    assert (tools / "toolbox.json").is_file()


def test_mcts(images: list[str]) -> None:
    gains = mcts.main(["--episodes", "2", "--simulations", "100", *images])
    assert gains["search"] >= gains["greedy"] > 0


def test_cleanrl_ppo_learns() -> None:
    few, more = (cleanrl_ppo.main(["--total-timesteps", str(steps)]) for steps in (1_024, 30_720))
    assert more > few + 0.2
