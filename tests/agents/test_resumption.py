"""Trainings of agents that are killed or told to stop, and resumed."""

from __future__ import annotations

import dataclasses
import io
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from safetensors.torch import load_file

from agents.agent import PolicyError
from agents.drqn.buffers import EpisodeReplayBuffer
from agents.drqn.replay_files import ReplayFiles
from agents.training.agent import train_agent
from agents.training.algorithms import AlgorithmName
from agents.training.settings import AgentProgress, AgentTraining
from tests.support.toolkit import photographs, pixelwise_toolbox

SMALL: dict[AlgorithmName, dict[str, int]] = {
    "ppo": {"n_steps": 6, "batch_size": 24, "n_epochs": 1},
    "drqn": {"learning_starts": 16, "gradient_steps": 1, "batch_size": 8, "buffer_size": 64},
}
each_algorithm = pytest.mark.parametrize("algorithm", SMALL)


class KilledError(Exception):
    pass


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.training.run.VALIDATION_EPISODES", 4)
    monkeypatch.setattr("agents.training.run.VALIDATIONS", 3)
    monkeypatch.setattr("agents.training.run.CHECKPOINT_SECONDS", -1.0)


def settings(out: Path, algorithm: AlgorithmName, steps: int = 120, **changes: Any) -> AgentTraining:
    arguments = {"images": photographs(2), "toolbox": pixelwise_toolbox(super_resolver=True), "upscale": (1, 4)}
    return AgentTraining(
        out=out, steps=steps, algorithm=algorithm, envs=5, hyperparameters=SMALL[algorithm], **{**arguments, **changes}
    )


def at(report: int, action: Callable[[], object]) -> Callable[[AgentProgress], None]:
    """Does something at a report."""
    count = iter(range(10**6))

    def reported(_: AgentProgress) -> None:
        if next(count) == report:
            action()

    return reported


def kill() -> None:
    raise KilledError


def outcome(folder: Path) -> dict[str, torch.Tensor]:
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    written = load_file(folder / "agent.safetensors")
    optimizer = {
        f"optimizer {number} {key}": value
        for number, values in state["optimizer"]["state"].items()
        for key, value in values.items()
    }
    best = {f"best {name}": value for name, value in written.items()}
    return {**state["policy"], **optimizer, **best, "random": state["collected"]["random"]["torch"]}


@each_algorithm
def test_a_run_that_was_killed_ends_as_one_that_was_not(algorithm: AlgorithmName, tmp_path: Path) -> None:
    train_agent(settings(tmp_path / "whole", algorithm))
    for report in (3, 13, 8):
        with pytest.raises(KilledError):
            train_agent(settings(tmp_path / "killed", algorithm), at(report, kill))
        torch.rand(3), np.random.random(3)  # noqa: NPY002 - another process has other random states
    train_agent(settings(tmp_path / "killed", algorithm))
    whole, killed = outcome(tmp_path / "whole"), outcome(tmp_path / "killed")
    assert whole.keys() == killed.keys()
    assert all(torch.equal(value, killed[key]) for key, value in whole.items())
    assert sorted(path.name for path in (tmp_path / "whole").iterdir()) == sorted(
        path.name for path in (tmp_path / "killed").iterdir()
    )
    (tmp_path / "killed" / "README.md").unlink()  # as if it had been killed just before its end
    train_agent(settings(tmp_path / "killed", algorithm))
    again = outcome(tmp_path / "killed")
    assert all(torch.equal(value, again[key]) for key, value in whole.items())


def test_a_run_that_is_told_to_stop_saves_itself_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm: AlgorithmName = "ppo"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may ignore it
    monkeypatch.setattr("agents.training.run.CHECKPOINT_SECONDS", 3600.0)
    train_agent(settings(tmp_path / "whole", algorithm))
    with pytest.raises(KeyboardInterrupt):
        train_agent(settings(tmp_path / "told", algorithm), at(8, lambda: os.kill(os.getpid(), signal.SIGINT)))
    signal.signal(signal.SIGINT, before)
    assert torch.load(tmp_path / "told" / "checkpoint.pt", weights_only=True)["steps"] > 0
    train_agent(settings(tmp_path / "told", algorithm))
    whole, told = outcome(tmp_path / "whole"), outcome(tmp_path / "told")
    assert all(torch.equal(value, told[key]) for key, value in whole.items())


@each_algorithm
def test_a_checkpoint_of_an_earlier_version_and_a_damaged_one(algorithm: AlgorithmName, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    train_agent(settings(tmp_path, algorithm, 40))
    state = torch.load(path, weights_only=True)
    longer = settings(tmp_path, algorithm, 80)
    changes: list[dict[str, Any]] = [{"environment": {}}, {"observation": None}, {"memory": []}, {"random": {}}]
    for change in changes:
        torch.save({**state, "collected": {**state["collected"], **change}}, path)
        if "memory" in change and algorithm == "drqn":
            continue
        with pytest.raises(PolicyError, match=r"checkpoint\.pt: damaged"):
            train_agent(longer)
    torch.save({name: value for name, value in state.items() if name not in ("collected", "validated")}, path)
    _, progress = train_agent(longer)
    assert progress.steps >= 80


def test_a_full_disk_is_an_error_that_names_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, _: Any) -> int:
            raise OSError(28, "No space left on device")

    @contextmanager
    def part_file(folder: Path) -> Iterator[Any]:
        yield folder / "part", Full()

    monkeypatch.setattr("agents.training.run.save_policy", lambda *_: None)
    monkeypatch.setattr("restore_env.images.files.part_file", part_file)
    with pytest.raises(OSError, match="No space left") as error:
        train_agent(settings(tmp_path, "ppo"))
    assert str(error.value.filename).endswith("checkpoint.pt")


def test_the_output_may_be_deleted_meanwhile(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def delete() -> None:
        for path in sorted(out.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        out.rmdir()

    _, progress = train_agent(settings(out, "ppo"), at(9, delete))
    assert progress.steps == 120
    assert {"agent.safetensors", "checkpoint.pt", "logs", "README.md"} <= {path.name for path in out.iterdir()}
    assert dataclasses.replace(progress, remark="").share == 1


def test_replayed_episodes_are_kept_and_forgotten_with_the_buffer(tmp_path: Path) -> None:
    space = spaces.Dict({"image": spaces.Box(0, 255, (2, 2), np.uint8), "last_action": spaces.Discrete(4)})

    def new() -> EpisodeReplayBuffer:
        return EpisodeReplayBuffer(20, space, spaces.Discrete(3), n_envs=2)

    def observation(value: int) -> dict[str, Any]:
        return {"image": np.full((2, 2, 2), value, np.uint8), "last_action": np.full(2, value % 4)}

    buffer, files, again = new(), ReplayFiles(tmp_path / "replay"), ReplayFiles(tmp_path / "replay")
    for step in range(60):
        done = np.array([step % 3 == 2, step % 5 == 4])
        rewards = np.array([step, -step], np.float32)
        buffer.add(observation(step), observation(step + 1), np.array([step % 3, 0]), rewards, done, [{}, {}])
        if step % 7:
            continue
        state = files.save(buffer)
        files.prune()
        copy = new()
        again.load(copy, state)
        assert (copy.size(), copy.added, copy.finished, len(copy)) == (
            buffer.size(),
            buffer.added,
            buffer.finished,
            len(buffer),
        )
        if len(buffer):
            mine, theirs = buffer.sample(9), copy.sample(9)
            assert isinstance(mine.observations, dict)
            assert isinstance(theirs.observations, dict)
            assert all(torch.equal(value, theirs.observations[key]) for key, value in mine.observations.items())
            assert all(torch.equal(one, two) for one, two in zip(mine[1:], theirs[1:], strict=True))
            buffer.rng.bit_generator.state = copy.rng.bit_generator.state
    assert 1 <= len(list((tmp_path / "replay").iterdir())) <= 6
