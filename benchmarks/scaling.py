"""How ``imagerestore restore --ray`` scales: ``python -m benchmarks.scaling``.

The command restores folders of small photographs without Ray and with one and more workers of a Ray on this machine.
Each run is a process of its own, whose processor time is that of it and of all that it started, Ray's processes and
workers, so that it counts the same while the machine does something else. Files that are empty and fail at once tell
what Ray takes for a file on which nothing is done, and so how many files a second one command can hand out.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from agents.command_line import OneLineParser, positive_int, run_guarded
from benchmarks.report.machine import environment
from benchmarks.report.publishing import add_outputs, check_outputs, markdown_table, parse, publish
from benchmarks.restoring import COMMAND, HERE, SMALL, write_photographs
from restore_env.extras import require_extra

PROGRAM = "benchmarks.scaling"
SAMPLE_SECONDS = 0.2
"""Between two looks at the processor times; what a process takes after the last one is not counted."""
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@dataclass(frozen=True)
class Run:
    """One line of the table."""

    kind: str
    """What is restored."""
    count: int
    """Files."""
    workers: int | None
    """None: without Ray."""
    wall: float
    """Seconds of the whole command."""
    first: float
    """Seconds until the first file was done."""
    last: float
    """Seconds until all were done; ending Ray takes some more."""
    processor: float
    """Processor seconds of the command and all that it started."""

    @property
    def rate(self) -> float:
        """Files per second after the first one."""
        return (self.count - 1) / max(self.last - self.first, 1e-9)


def processor_times(ancestor: int) -> dict[int, tuple[str, float]]:
    """Title and processor seconds of a process and all that descend from it (Linux)."""
    found: dict[int, tuple[int, str, float]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            _, _, rest = (folder / "stat").read_text().rpartition(")")
            title = (folder / "cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
        except OSError:  # it has ended
            continue
        numbers = rest.split()
        found[int(folder.name)] = int(numbers[1]), title, (int(numbers[11]) + int(numbers[12])) / _TICKS

    def descends(number: int) -> bool:
        while number in found and number != ancestor:
            number = found[number][0]
        return number == ancestor

    return {number: (title, seconds) for number, (_, title, seconds) in found.items() if descends(number)}


def timed(kind: str, folder: Path, count: int, workers: int | None) -> Run:
    """Restore a folder of ``count`` files.

    Raises:
        RuntimeError: another exit code than the kind's.
    """
    with tempfile.TemporaryDirectory(dir=folder.parent) as out:
        ray = () if workers is None else ("--ray", "--ray-workers", str(workers))
        command = [sys.executable, *COMMAND, "restore", str(folder), "-o", f"{out}/", "--json", *ray]
        variables = {**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
        seen: dict[int, tuple[str, float]] = {}
        began, first, last = time.monotonic(), 0.0, 0.0
        with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            ended = threading.Event()

            def sample() -> None:
                while not ended.wait(SAMPLE_SECONDS):
                    seen.update(processor_times(process.pid))

            sampler = threading.Thread(target=sample, daemon=True)
            sampler.start()
            assert process.stdout is not None
            for _ in process.stdout:
                last = time.monotonic() - began
                first = first or last
            wall = time.monotonic() - began
            ended.set()
            sampler.join()
    if process.returncode != (2 if kind == "empty" else 0):
        raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}")
    return Run(kind, count, workers, wall, first, last, sum(seconds for _, seconds in seen.values()))


def table(runs: Sequence[Run]) -> list[str]:
    """The runs as a Markdown table."""
    heads = ["files", "count", "workers", "s", "s until the first", "files/s after it", "ms of processor a file"]
    rows = []
    for run in runs:
        workers = "without Ray" if run.workers is None else run.workers
        numbers = (run.wall, run.first, run.rate, 1000 * run.processor / run.count)
        rows.append([run.kind, run.count, workers, *(f"{value:.1f}" for value in numbers)])
    return markdown_table(heads, rows)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--counts", nargs="+", type=positive_int, default=[20, 80, 240], metavar="N", help="photographs (20 80 240)"
    )
    parser.add_argument(
        "--workers", nargs="+", type=positive_int, default=[1, 2], metavar="N", help="of Ray (default 1 2)"
    )
    parser.add_argument("--empty", type=positive_int, default=2000, metavar="N", help="empty files (default 2000)")
    add_outputs(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Measure everything and print the table."""
    check_outputs(arguments)
    require_extra("ray", PROGRAM)
    load, runs = [os.getloadavg()[0]], list[Run]()
    photographs = f"{SMALL[0]}x{SMALL[1]}"
    for count in arguments.counts:
        with tempfile.TemporaryDirectory() as name:
            write_photographs(Path(name), count, [])
            runs += [timed(photographs, Path(name) / "small", count, workers) for workers in (None, *arguments.workers)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "empty"
        folder.mkdir()
        for number in range(arguments.empty):
            (folder / f"{number:06}.jpg").touch()
        runs += [timed("empty", folder, arguments.empty, workers) for workers in (None, *arguments.workers)]
    load.append(os.getloadavg()[0])
    facts = environment("cpu")
    machine = (
        f"{facts['processor']}, {facts['cores']} cores, a thread a process; load average {load[0]:.1f} before and"
        f" {load[1]:.1f} after the run"
    )
    text = "\n".join(table(runs))
    publish(
        arguments,
        f"{text}\n\n{machine}",
        {"rows": [asdict(each) for each in runs], "load": load} | {"environment": facts},
    )
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parsed = parse(build_parser(), arguments)
    return run_guarded(lambda: run(parsed), PROGRAM)


if __name__ == "__main__":
    sys.exit(main())
