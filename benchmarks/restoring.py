"""Time, processor time and peak memory of ``imagerestore``: ``python -m benchmarks.speed --restore``.

Each command runs in a process of its own. Of several rounds the best one counts: others are disturbed by what else the
machine does. With ``--against`` the commands also run in another checkout, in turn with this one.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from agents.command_line import positive_float, positive_int
from benchmarks.report.machine import environment
from benchmarks.report.publishing import check_outputs, markdown_table, publish
from restore_env.images.sources import embedded_paths

HERE, THIS = Path(__file__).resolve().parents[1], "this"
SMALL = (200, 150)
"""Width and height of the small photographs, pixels."""
COMMAND = ("-m", "agents.cli")
FIRST_TILE = (
    "-c",
    "import contextlib, os, sys\n"
    "import agents.cli, agents.commands.restore as command\n"
    "@contextlib.contextmanager\n"
    "def until_first(label):\n"
    "    yield lambda what, share: os._exit(0)\n"
    "command.progress_bar = until_first\n"
    "agents.cli.main(sys.argv[1:])\n",
)
"""Python that ends when the agent has been asked about the first tiles."""


@dataclass(frozen=True)
class Case:
    """A command that is timed."""

    name: str
    arguments: tuple[str, ...]
    """Of ``imagerestore``, in a folder that :func:`write_photographs` has filled."""
    python: tuple[str, ...] = COMMAND
    quick: bool = True
    """Whether it takes seconds at most, so that there is time for all rounds."""


@dataclass(frozen=True)
class Timing:
    """One line of the table."""

    case: str
    checkout: str
    """:data:`THIS`, or the folder of the other one."""
    wall: float
    """Seconds."""
    processor: float
    """Seconds of all threads, in the program and in the system for it."""
    memory: float | None
    """Peak, MiB; None for a quick command, whose peak may be that of the benchmark that started it."""


def cases(count: int, megapixels: Sequence[float]) -> list[Case]:
    """All commands, for ``count`` small photographs and large ones of these sizes."""
    large = [f"{size:g} megapixels" for size in megapixels]
    one = f"one of {SMALL[0]}x{SMALL[1]}"
    return [
        Case("--help", ("--help",)),
        Case("--version", ("--version",)),
        Case("error: no such file", ("restore", "none.jpg")),
        Case("error: the result exists", ("restore", "small/000.jpg", "-o", "exists.png")),
        Case(f"{one}, to its first tile", ("restore", "small/000.jpg", "-o", "out/", "--force"), FIRST_TILE),
        Case(one, ("restore", "small/000.jpg", "-o", "out/", "--force")),
        Case(f"{count} of {SMALL[0]}x{SMALL[1]}", ("restore", "small", "-o", "out/", "--force"), quick=False),
        *(Case(name, ("restore", f"{name}.jpg", "-o", "out/", "--force"), quick=False) for name in large),
    ]


def write_photographs(folder: Path, count: int, megapixels: Sequence[float]) -> None:
    """Write noisy JPEGs, crops and enlargements of the photographs that come with scikit-image."""
    rng = np.random.default_rng(0)
    sources = [Image.open(path).convert("RGB") for path in embedded_paths()[:3]]
    (folder / "small").mkdir()
    (folder / "exists.png").touch()
    for number in range(count):
        source = sources[number % len(sources)]
        left, top = (int(rng.integers(0, whole - part)) for whole, part in zip(source.size, SMALL, strict=True))
        crop = source.crop((left, top, left + SMALL[0], top + SMALL[1]))
        _save(folder / "small" / f"{number:03}.jpg", crop, (0, 8, 20)[number % 3], (90, 60, 30)[number // 3 % 3], rng)
    for size in megapixels:
        width, height = round(1200 * size**0.5), round(1e6 * size / round(1200 * size**0.5))
        _save(folder / f"{size:g} megapixels.jpg", sources[2].resize((width, height)), 12, 85, rng)


def _save(path: Path, image: Image.Image, noise: float, quality: int, rng: np.random.Generator) -> None:
    pixels = np.asarray(image, dtype=np.float32)
    pixels = pixels + noise * rng.standard_normal(pixels.shape, dtype=np.float32)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=quality)


def timed(case: Case, folder: Path, checkout: Path) -> tuple[float, float, float]:
    """Run a command: seconds, processor seconds, and peak MiB."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    variables |= {"PYTHONPATH": str(checkout), "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *case.python, *case.arguments],
        cwd=folder,
        env=variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != (2 if case.name.startswith("error") else 0):
        raise RuntimeError(f"{case.name}: exit code {process.returncode} in {checkout}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**10


def measure(every: Sequence[Case], folder: Path, checkouts: Sequence[Path], rounds: int) -> list[Timing]:
    """Time all commands in all checkouts in turn; of several rounds the smallest numbers count."""
    timings = []
    for case in every:
        runs: dict[Path, list[tuple[float, float, float]]] = {checkout: [] for checkout in checkouts}
        for _ in range(rounds if case.quick else 1):
            for checkout, done in runs.items():
                done.append(timed(case, folder, checkout))
        for checkout, done in runs.items():
            wall, processor, memory = (min(numbers) for numbers in zip(*done, strict=True))
            name = THIS if checkout == HERE else str(checkout)
            timings.append(Timing(case.name, name, wall, processor, None if case.quick else memory))
    return timings


def table(timings: Sequence[Timing]) -> list[str]:
    """The timings as a Markdown table, a row for each command; those of the other checkout first."""
    checkouts = sorted({timing.checkout for timing in timings}, key=lambda name: name == THIS)
    parts = (" before", " after") if len(checkouts) > 1 else ("",)
    heads = ["command", *(f"{what}{part}" for what in ("s", "processor s", "MiB") for part in parts)]
    rows = []
    for name in dict.fromkeys(timing.case for timing in timings):
        by_checkout = {timing.checkout: timing for timing in timings if timing.case == name}
        each = [by_checkout[checkout] for checkout in checkouts]
        seconds = [f"{value:.2f}" for value in (*(one.wall for one in each), *(one.processor for one in each))]
        rows.append([name, *seconds, *("-" if one.memory is None else f"{one.memory:.0f}" for one in each)])
    return markdown_table(heads, rows)


def run(arguments: argparse.Namespace) -> int:
    """Measure everything and print the table."""
    check_outputs(arguments)
    checkouts = [HERE] if arguments.against is None else [arguments.against.resolve(), HERE]
    for checkout in checkouts:
        if not (checkout / "agents" / "cli.py").is_file():
            raise ValueError(f"{checkout}: no checkout of this project")
    load = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory() as name:
        with ProcessPoolExecutor(
            1, get_context("spawn")
        ) as pool:  # a process hands its peak of memory on to its children
            pool.submit(write_photographs, Path(name), arguments.small, arguments.megapixels).result()
        timings = measure(cases(arguments.small, arguments.megapixels), Path(name), checkouts, arguments.rounds)
    load.append(os.getloadavg()[0])
    facts = environment("cpu")
    text = "\n".join(table(timings))
    machine = (
        f"{facts['processor']}, {facts['cores']} cores, {facts['threads']} PyTorch threads; load average"
        f" {load[0]:.1f} before and {load[1]:.1f} after the run"
    )
    record: dict[str, Any] = {"rows": [asdict(timing) for timing in timings], "load": load, "environment": facts}
    publish(arguments, f"{text}\n\n{machine}", record)
    return 0


def add_options(parser: Any) -> None:
    """Add the options of ``--restore`` to a parser or a group of its options."""
    parser.add_argument("--restore", action="store_true", help="time the command line, not environments")
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="time another checkout in turn, too")
    parser.add_argument("--small", type=positive_int, default=300, metavar="N", help="small photographs (default 300)")
    parser.add_argument(
        "--megapixels", type=positive_float, nargs="+", default=[12.0, 60.0], help="large ones (default 12 60)"
    )
    parser.add_argument("--rounds", type=positive_int, default=5, help="of commands that take seconds (default 5)")
