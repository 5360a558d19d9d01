"""Trainings that several processes share, started by torchrun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.support import two_processes
from tests.support.command_line import Shell, assert_one_line
from tests.support.toolkit import photographs
from tools_zoo.training import distributed
from tools_zoo.training.distributed import ProcessError, check_batch, joined
from tools_zoo.training.settings import TrainingSettings

pytestmark = pytest.mark.usefixtures("one_thread")

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
ROOT = Path(__file__).resolve().parents[2]


def start(*words: str | Path, folder: Path, options: Sequence[str] = ()) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [*TORCHRUN, *options, *map(str, words)]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run(folder: Path, *names: str, options: Sequence[str] = ()) -> list[str]:
    """Run trainings in two processes and return the lines that they print."""
    with start(two_processes.__file__, folder, *names, folder=folder, options=options) as process:
        try:
            out, err = process.communicate(timeout=300)
        finally:
            process.terminate()
    assert process.returncode == 0, err
    return out.splitlines()


def checkpoints(folder: Path) -> dict[str, Any]:
    return {path.stem: torch.load(path, weights_only=True) for path in folder.rglob("*.pt")}


def listing(folder: Path) -> list[str]:
    """The files in a folder, logs by their folder."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(str(path.parent if "tfevents" in path.name else path) for path in paths)


def moments(state: dict[str, Any]) -> torch.Tensor:
    """The optimizer's averages of all gradients."""
    states = state["optimizer"]["state"].values()
    found = (each.get("exp_avg", each.get("mean")) for each in states)
    return torch.cat([each.flatten() for each in found if each is not None])


def test_two_processes_do_what_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together, alone = tmp_path / "together", tmp_path / "alone"
    together.mkdir()
    run(together, *two_processes.TRAININGS, "disagree")
    two_processes.shrink(monkeypatch.setattr)
    for name, train in two_processes.TRAININGS.items():
        train(alone / name)
        assert listing(together / name) == listing(alone / name)
        assert_alike(checkpoints(together / name), checkpoints(alone / name))
    said = [(together / "disagree" / f"{rank}.txt").read_text() for rank in (0, 1)]
    steps = int(said[0].split()[0])  # by the first one's clock
    assert steps > 0
    assert said == [
        f"{steps} steps, ImageRestoreError: the disk is full",
        f"{steps} steps, ProcessError: the first process: the disk is full",
    ]
    gradient = two_processes.relative_gradient(slice(None))
    for rank in (0, 1):
        assert torch.allclose(torch.load(together / "disagree" / f"gradient-{rank}"), gradient, rtol=1e-5)


def assert_alike(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Checkpoints are equal up to rounding: their steps, the gradients, and what batch norm has seen."""
    assert ours.keys() == theirs.keys()
    for name, state in theirs.items():
        other, gradients = ours[name], moments(state)
        assert other["step"] == state["step"]
        difference = torch.linalg.vector_norm(moments(other) - gradients)
        assert difference < 1e-4 * torch.linalg.vector_norm(gradients), name
        for key, value in state["network"].items():
            if "running" in key:
                assert torch.allclose(other["network"][key], value, rtol=1e-4, atol=1e-5), key


@pytest.mark.slow
def test_killed_processes_are_restarted_and_end_as_if_they_had_not_been(tmp_path: Path) -> None:
    lines = run(tmp_path, "killed", "tools", options=("--max-restarts", "2"))
    made = [[f"killed/denoise_2 start {number} step {step}" in lines for step in range(6)] for number in range(3)]
    assert made[0][:2] == [True, True]
    assert made[1] == [False, False, True, True, False, False]
    assert made[2] == [False] * 4 + [True, True]
    whole, killed = checkpoints(tmp_path / "tools"), checkpoints(tmp_path / "killed")
    for name, state in whole.items():
        assert killed[name]["step"] == state["step"]
        for part in ("network", "average"):
            assert all(torch.equal(value, killed[name][part][key]) for key, value in state[part].items())
    assert listing(tmp_path / "killed") == sorted([*listing(tmp_path / "tools"), *["logs/denoise_2"] * 2])
    assert not list((tmp_path / "killed").rglob(".*"))


@pytest.mark.slow
def test_terminated_processes_save_themselves(tmp_path: Path) -> None:
    for number, pixels in enumerate(photographs(2, 60, 80)):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    words = ["train", "tools", "--tools", "denoise_2", "--batch-size", "2", "--patch-size", "16", "--minutes", "9"]
    with start("-m", "agents.cli", *words, "--images", ".", "--out", "out", folder=tmp_path) as process:
        try:
            assert process.stdout is not None
            assert "denoise_2: " in process.stdout.readline()
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=120)
        finally:
            process.terminate()
    assert err.count("imagerestore: terminated; what is written is whole\n") == 2
    assert torch.load(tmp_path / "out" / "checkpoints" / "denoise_2.pt", weights_only=True)["step"] > 0
    assert not list((tmp_path / "out").rglob(".*"))


def test_what_processes_cannot_share_is_refused(tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "run")
    monkeypatch.setenv("WORLD_SIZE", "3")
    code, _, err = shell("train", "agent", "--out", "out", model=False)
    assert code == 2
    assert_one_line(err, "train agent runs in one process: start it without torchrun")
    with (
        pytest.raises(ProcessError, match="cuda:1: with several processes give cuda"),
        joined(TrainingSettings(out=tmp_path, device="cuda:1")),
    ):
        pass
    monkeypatch.setattr(distributed, "count", lambda: 3)
    with pytest.raises(ProcessError, match="batch_size 16 cannot be shared by 3 processes: choose 15 or 18"):
        check_batch(16)
    with pytest.raises(ProcessError, match=r"choose 3$"):
        check_batch(2)
    check_batch(18)
