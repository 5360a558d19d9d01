"""Every benchmark in short, and a page of their tables: ``python -m benchmarks.short``.

Each row of :data:`ROWS` runs in a process of its own and writes a JSON file, from which the page is made. One that
fails stops no other. What the same version has measured by the same command is not measured again, so an interrupted
run continues; after uncommitted changes give ``--again``. Few patches and seconds of training show that all works and
roughly how things compare: quote the long versions.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from agents.command_line import OneLineParser, run_guarded
from benchmarks.report.machine import environment
from benchmarks.report.publishing import COMMAND, TABLES, VERSION, parse
from restore_env.images.files import list_images, write_atomically
from restore_env.images.sources import embedded_paths, images_in
from tools_zoo.training.cards import command_line, source_version

PROGRAM = "benchmarks.short"
FOLDER, PAGE = Path("runs/bench"), Path("docs/bench.md")
FEW = 3
"""How many photographs are restored whole."""
PAGE_TEXT = """# Every benchmark in short

Written by the command below. Few patches and seconds of training: this shows that everything works and roughly how
things compare; `docs/results.md` has the long versions.

Latest run: {time}, {processor}, {cores} cores, {threads} PyTorch threads, {cpu_capability}, Python {python},
{packages}, {version}. On {photographs}.

```
{command}
```

{sections}
"""


class Row(NamedTuple):
    """One benchmark's short version."""

    name: str
    """Of its JSON file."""
    title: str
    """Of its section of the page."""
    module: str
    """Package or module below ``benchmarks`` that is run; it takes ``--json`` (:mod:`benchmarks.report.publishing`)."""
    arguments: str
    """Separated by spaces. In braces: ``images``, the folder of photographs that are restored; ``few``, a folder of a
    few of them, for benchmarks that restore them whole; ``other``, a folder of others, to search and train on;
    ``runs``, a folder for trainings."""


ABLATED = "--images {images} --train-images {other} --patches 40 --choose-patches 20"
TRAINED = f"{ABLATED} --minutes 0.2"
ROWS = (
    Row("tools", "Each tool on its own distortion", "tools", "--images {images} --patches 24"),
    Row(
        "agents",
        "The agent, constant chains and the oracle",
        "compare",
        "--images {images} --search-images {other} --patches 60 --search-patches 4 --beam 2 --reference input"
        " --methods input random fixed_1 fixed_2 default greedy",
    ),
    Row(
        "comparison",
        "Toolchains against one network",
        "compare",
        "--images {images} --search-images {other} --severity mild moderate severe --patches 60 --search-patches 4"
        " --beam 2",
    ),
    Row(
        "outside",
        "Distortions outside the protocol",
        "compare",
        "--images {images} --severity motion poisson webp unseen camera saved --methods input default photo classic"
        " --patches 60",
    ),
    Row(
        "photographs",
        "Whole photographs",
        "compare",
        "--images {few} --photographs --methods input default classic",
    ),
    Row(
        "attribution",
        "What choosing is worth",
        "attribution",
        "--images {images} --choose-images {other} --patches 24 --choose-patches 16 --parts toolboxes order removed",
    ),
    Row("stop", "The stop action", "ablations", f"stop {ABLATED}"),
    Row("steps", "Length of the chain", "ablations", f"steps {ABLATED}"),
    Row("joint", "Joint training", "ablations", f"joint {ABLATED}"),
    Row("six", "Six tools or twelve", "ablations", f"tools {TRAINED}"),
    Row("memory", "Memory and the previous action", "ablations", f"memory {TRAINED}"),
    Row("algorithms", "RecurrentPPO and DRQN", "ablations", f"algorithms {TRAINED} --seeds 1"),
    Row(
        "super-resolution",
        "Super-resolvers",
        "compare",
        "--images {few} --task x4 --photographs --methods bicubic sft_gan_psnr sft_gan sed_psnr sed",
    ),
    Row("x4", "Toolchains and super-resolvers, x4", "compare", "--images {images} --task x4 --patches 16"),
    Row(
        "scratch",
        "Reinforcement learning from scratch",
        "agents",
        "--algorithms ppo dqn imitation --steps 40960 --seeds 2 --runs {runs}",
    ),
    Row("speed", "Steps per second", "speed", "--images {images} --envs 8 64 --seconds 3"),
    Row("restore", "The command line", "speed", "--restore --small 20 --megapixels 2 --rounds 2"),
)
"""All rows, in the order of the page."""


def photograph_folders(images: Path | None, out: Path) -> dict[str, Path]:
    """The folders that rows name in braces.

    Raises:
        ImageError: no image files in ``images``.
    """
    bundled = embedded_paths()
    other = copy_files(bundled[1::2], out / "other")
    images = images or copy_files(bundled[::2], out / "bundled")
    paths = images_in(images)
    few = copy_files(paths[:: -(-len(paths) // FEW)], out / f"few-{images.resolve().name}")
    return {"images": images, "few": few, "other": other, "runs": out / "runs"}


def copy_files(paths: Sequence[Path], folder: Path) -> Path:
    """Copy files into a folder and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(paths):
        write_atomically(folder / f"{number:04d}{path.suffix}", path.read_bytes())
    return folder


def arguments_of(row: Row, places: Mapping[str, Path], folder: Path) -> list[str]:
    """The arguments of a row's process: its own, then its JSON file."""
    relative = {name: os.path.relpath(path) for name, path in places.items()}
    words = [word.format(**relative) for word in row.arguments.split()]
    return [*words, "--json", f"{os.path.relpath(folder)}/{row.name}.json"]


def read_record(row: Row, folder: Path) -> dict[str, Any] | None:
    """The contents of the row's JSON file, if there is a whole one."""
    try:
        record: dict[str, Any] = json.loads((folder / f"{row.name}.json").read_text(encoding="utf-8"))
        return record if {COMMAND, TABLES, VERSION} <= record.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def run_row(row: Row, words: Sequence[str], folder: Path) -> None:
    """Run one benchmark, its output in a log beside its JSON file.

    Raises:
        RuntimeError: it failed; the message is its last line.
    """
    log = folder / f"{row.name}.log"
    (folder / f"{row.name}.json").unlink(missing_ok=True)
    command = [sys.executable, "-m", f"benchmarks.{row.module}", *words]
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)
    if done.returncode or read_record(row, folder) is None:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
        reason = last if done.returncode else "no JSON file with its command, version and tables"
        raise RuntimeError(f"{reason} (exit code {done.returncode}, {log})")


def write_page(page: Path, folder: Path, command: str, photographs: str) -> None:
    """Write the page from all JSON files in the folder."""
    sections = []
    for row in ROWS:
        record = read_record(row, folder)
        text = "Not measured yet."
        if record is not None:
            text = f"{record[TABLES]}\n\n{record[VERSION]}.\n\n```\n{record[COMMAND]}\n```"
        sections.append(f"## {row.title}\n\n{text}")
    facts = environment()
    facts["packages"] = ", ".join(f"{name} {number}" for name, number in facts["packages"].items())
    text = PAGE_TEXT.format(sections="\n\n".join(sections), command=command, photographs=photographs, **facts)
    write_atomically(page, text.encode())


def run(arguments: argparse.Namespace) -> int:
    """Measure what is not measured yet, write the page, and report failures."""
    names = [row.name for row in ROWS]
    unknown = sorted(set(arguments.only or ()) - set(names))
    if unknown:
        raise ValueError(f"unknown benchmark {unknown[0]!r}: choose from {', '.join(names)}")
    if not arguments.page.parent.is_dir():
        raise ValueError(f"{arguments.page.parent}: no such folder")
    rows = [row for row in ROWS if not arguments.only or row.name in arguments.only]
    folder, version = arguments.out, source_version()
    places = photograph_folders(arguments.images, folder)
    photographs = "scikit-image's photographs"
    if arguments.images is not None:
        photographs = f"{len(list_images(arguments.images))} photographs of {os.path.relpath(arguments.images)}"
    failures: list[str] = []
    for number, row in enumerate(rows, 1):
        began = time.perf_counter()
        words = arguments_of(row, places, folder)
        record = None if arguments.again else read_record(row, folder)
        command = command_line(f"python -m benchmarks.{row.module}", words)
        outcome = "measured before"
        if record is None or (record[VERSION], record[COMMAND]) != (version, command):
            try:
                run_row(row, words, folder)
                outcome = f"{time.perf_counter() - began:.0f} s"
            except RuntimeError as error:
                failures.append(row.name)
                outcome = f"failed: {error}"
        write_page(arguments.page, folder, arguments.command_line, photographs)
        print(f"[{number}/{len(rows)}] {row.name}: {outcome}", file=sys.stderr, flush=True)
    print(f"{len(rows) - len(failures)} of {len(rows)} benchmarks are in {arguments.page}")
    if failures:
        print(f"{PROGRAM}: failed: {', '.join(failures)}", file=sys.stderr)
    return 1 if failures else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line: exit code 0 if all is measured, 1 if a benchmark failed, 2 for a mistake."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--images", type=Path, metavar="DIR", help="photographs (default: scikit-image's, bundled)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"of {', '.join(row.name for row in ROWS)}")
    parser.add_argument("--again", action="store_true", help="measure again what was measured")
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="DIR", help=f"for files (default {FOLDER})")
    parser.add_argument("--page", type=Path, default=PAGE, metavar="FILE", help=f"Markdown (default {PAGE})")
    parsed = parse(parser, arguments)
    return run_guarded(lambda: run(parsed), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
