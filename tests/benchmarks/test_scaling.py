"""What a run by Ray takes: processor times of all its processes, and the table."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import scaling
from benchmarks.scaling import Run

BUSY = "import time\nend = time.process_time() + 0.5\nwhile time.process_time() < end: pass\ntime.sleep(60)"
PARENT = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BUSY!r}, 'RayWorker'])"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_processes_of_processes_are_counted_and_no_others() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT]) as process:
        deadline, times = time.monotonic() + 30, scaling.processor_times(process.pid)
        while max((seconds for _, seconds in times.values()), default=0) < 0.5 and time.monotonic() < deadline:
            time.sleep(0.05)
            times = scaling.processor_times(process.pid)
        assert len(times) == 2
        assert sum(seconds for _, seconds in times.values()) >= 0.5
        for number in sorted(times, reverse=True):
            subprocess.run(["kill", "-9", str(number)], check=False)


def test_a_command_is_timed_and_another_exit_code_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    program = "import sys, time\nprint(1, flush=True); time.sleep(0.5); print(2); sys.exit('broken' in sys.argv[2])"
    monkeypatch.setattr(scaling, "COMMAND", ("-c", program))
    run = scaling.timed("photographs", tmp_path / "in", 2, None)
    assert 0 < run.first < run.last <= run.wall
    assert run.rate == pytest.approx(1 / (run.last - run.first))
    (tmp_path / "broken").mkdir()
    with pytest.raises(RuntimeError, match="exit code 1"):
        scaling.timed("photographs", tmp_path / "broken", 2, None)


def test_the_table_has_processor_time_per_file() -> None:
    runs = [Run("small", 11, None, 5.5, 0.5, 5.5, 2.2), Run("small", 11, 2, 9.0, 3.0, 8.0, 3.3)]
    assert scaling.table(runs)[2:] == [
        "| small | 11 | without Ray | 5.5 | 0.5 | 2.0 | 200.0 |",
        "| small | 11 | 2 | 9.0 | 3.0 | 2.0 | 300.0 |",
    ]
