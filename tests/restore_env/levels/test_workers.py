"""Many processes play one level set: all read it, and one writes what it lacks."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from restore_env import ImageRestoreVectorEnv
from restore_env.levels.kept import KeptTransitions, Node
from restore_env.levels.store import DATABASE, open_levels
from tests.support.level_sets import TOOLBOX, small_levels

ROOT = Path(__file__).resolve().parents[3]
NODE = Node(1.0, 2.0, b"s", b"")
PLAY = "import sys; from tests.restore_env.levels.test_workers import play; print(play(sys.argv[1]))"
OWN = """
import sys
from pathlib import Path
from tests.restore_env.levels.test_workers import NODE, KeptTransitions
KeptTransitions(Path(sys.argv[1])).keep([(0, (1,))], [NODE])
print("kept", flush=True)
sys.stdin.read()
"""


def play(levels: str | Path) -> list[float]:
    """Rewards of steps to twice the depth of the set."""
    env = ImageRestoreVectorEnv(3, levels=levels, toolbox=TOOLBOX, observation="spectrum", max_steps=2)
    env.reset(options={"episode_seed": open_levels(levels).arrays["seed"][:3]})
    return [float(reward) for action in (0, 1) for reward in env.step(np.full(3, action))[1]]


def count(database: Path) -> int:
    with sqlite3.connect(database) as opened:
        return int(opened.execute("SELECT COUNT(*) FROM nodes").fetchone()[0])


@contextmanager
def owner(database: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that has written something and goes on."""
    command = [sys.executable, "-c", OWN, str(database)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"kept\n"
        yield process
        process.kill()


def test_processes_see_the_same_and_one_of_them_keeps_it(tmp_path: Path) -> None:
    levels = small_levels(tmp_path, depth=1)
    arrays = {path: path.stat().st_mtime_ns for path in levels.glob("*.npy")}
    command = [sys.executable, "-c", PLAY, str(levels)]
    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(subprocess.run, command, cwd=ROOT, capture_output=True, text=True) for _ in range(3)]
    outputs = {run.result().stdout for run in runs}
    assert outputs == {f"{play(levels)}\n"}
    assert count(levels / DATABASE) == 3
    assert {path: path.stat().st_mtime_ns for path in arrays} == arrays


def test_arrays_of_a_folder_are_shared_and_cannot_be_written(levels: Path) -> None:
    for array in open_levels(levels).arrays.values():
        assert isinstance(array.base, np.memmap)
        assert not array.flags.writeable


def test_only_one_process_writes_and_the_next_takes_over_when_it_is_killed(tmp_path: Path) -> None:
    kept = KeptTransitions(tmp_path / DATABASE)
    with owner(tmp_path / DATABASE):
        assert kept.find([(0, (1,)), (0, (2,))]) == [NODE, None]
        kept.keep([(0, (2,))], [NODE])
        assert count(tmp_path / DATABASE) == 1
    kept.keep([(0, (2,))], [NODE])
    assert kept.find([(0, (1,)), (0, (2,))]) == [NODE, NODE]


def test_what_is_kept_is_read_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with owner(tmp_path / DATABASE):
        pass
    monkeypatch.setattr("os.access", lambda path, mode: False)
    kept = KeptTransitions(tmp_path / DATABASE)
    kept.keep([(0, (2,))], [NODE])
    assert kept.find([(0, (1,)), (0, (2,))]) == [NODE, None]
