"""Trainings of networks that are told to stop, or run out of disk."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from tests.support.command_line import Shell, assert_one_line
from tests.support.toolkit import photographs
from tools_zoo.toolboxes import load_toolbox
from tools_zoo.training.curves import read_tensorboard
from tools_zoo.training.scalar_log import ScalarLog
from tools_zoo.training.trainer import Progress

TRAIN = ("train", "tools", "--tools", "denoise_2", "--batch-size", "2", "--patch-size", "16", "--out", "out")


@pytest.fixture
def images(shell: Shell) -> Path:
    folder = shell.folder / "images"
    folder.mkdir()
    for number, pixels in enumerate(photographs(2, 60, 80)):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def test_a_training_that_is_terminated_saves_itself(images: Path, shell: Shell) -> None:
    command = [sys.executable, "-m", "agents.cli", *TRAIN, "--images", str(images), "--minutes", "9"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=shell.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert "denoise_2: " in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert (process.returncode, err) == (143, "imagerestore: terminated; what is written is whole\n")
    state = torch.load(shell.folder / "out" / "checkpoints" / "denoise_2.pt", weights_only=True)
    assert state["step"] > 0
    assert not list((shell.folder / "out").rglob(".*"))


def test_a_full_disk_is_one_line_that_names_the_file(
    images: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: bytes) -> None:
        raise OSError(28, "No space left on device")

    @contextmanager
    def part_file(folder: Path) -> Iterator[Any]:
        yield folder / "part", SimpleNamespace(write=refuse)

    monkeypatch.setattr("restore_env.images.files.part_file", part_file)
    code, _, err = shell(*TRAIN, "--images", images, "--steps", "2", "--cache-dir", "cache", model=False)
    assert code == 2
    assert_one_line(err, "cache: cannot keep decoded images there (No space left on device)")
    monkeypatch.setattr("restore_env.images.cache.write_atomically", lambda path, data: path.write_bytes(data))
    code, _, err = shell(*TRAIN, "--images", images, "--steps", "2", "--cache-dir", "cache", model=False)
    assert code == 2
    assert_one_line(err, "error: out/checkpoints/denoise_2.pt: No space left on device")


def test_the_output_may_be_deleted_meanwhile(images: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools_zoo.training.trainer.REPORT_SECONDS", -1.0)

    def delete(_: Any, now: Progress) -> None:
        if now.step == 2:
            shutil.rmtree("out")

    monkeypatch.setattr("tools_zoo.training.display.TrainingDisplay.show_run", delete)
    code, _, err = shell(*TRAIN, "--images", images, "--steps", "4", model=False)
    assert (code, err) == (0, "")
    assert load_toolbox("out").names == ("denoise_2",)


def test_a_log_goes_on_in_a_new_folder_and_names_its_file(tmp_path: Path) -> None:
    log = ScalarLog(tmp_path / "logs")
    for step in (1, 2):
        log.add({"psnr/output": 20.0 + step, "train/loss": 0.5}, step)
    assert read_tensorboard(tmp_path / "logs")["psnr/output"] == ([1, 2], [21.0, 22.0])
    shutil.rmtree(tmp_path / "logs")
    log.add({"psnr/output": 23.0}, 3)
    assert read_tensorboard(tmp_path / "logs") == {"psnr/output": ([3], [23.0])}
    shutil.rmtree(tmp_path / "logs")
    (tmp_path / "logs").write_text("a file")
    with pytest.raises(OSError, match="tfevents"):
        log.add({"psnr/output": 23.0}, 4)
