"""Every benchmark in short, and a page of their tables: ``python -m benchmarks.short``.

Each row of ``benchmarks/short_table.py`` runs in a process of its own and writes a JSON file, from which the page is
made. One that fails stops no other. What the same version has measured by the same command is not measured again, so an
interrupted run continues; after uncommitted changes give ``--again``. Few patches and seconds of training show that all
works and roughly how things compare: quote the long versions.
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
from typing import Any

from agents.command_line import OneLineParser, run_guarded
from benchmarks.report.machine import environment
from benchmarks.report.publishing import COMMAND, TABLES, VERSION, parse
from benchmarks.short_table import ROWS, Row
from restore_env.images.files import write_atomically
from restore_env.images.sources import embedded_paths, list_images
from tools_zoo.training.cards import command_line, source_version

PROGRAM = "benchmarks.short"
FOLDER, PAGE = Path("runs/bench"), Path("docs/bench.md")
FEW = 3
"""How many photographs are restored whole."""
SECONDS = "seconds"
"""The entry of a row's JSON file that says how long it took."""
PAGE_TEXT = """# Every benchmark in short

Written by the command below. Few patches and seconds of training: this shows that everything works and roughly how
things compare; the pages that each section names have the long versions.

Latest run: {time}, {processor}, {cores} cores, {threads} PyTorch threads, {cpu_capability}, Python {python},
{packages}, {version}. On {photographs}.

```
{command}
```

{sections}
"""


def photograph_folders(images: Path | None, folder: Path) -> dict[str, Path]:
    """The folders that rows name (:data:`benchmarks.short_table.PLACES`).

    Raises:
        ValueError: no image files in ``images``.
    """
    paths = embedded_paths()
    bundled = copy_files(paths[::2], folder / "bundled"), copy_files(paths[1::2], folder / "other")
    if images is None:
        return {"images": bundled[0], "few": bundled[0], "other": bundled[1]}
    paths = list_images(images)
    if not paths:
        raise ValueError(f"{images}: no image files in this folder")
    few = copy_files(paths[:: -(-len(paths) // FEW)], folder / f"few-{images.resolve().name}")
    return {"images": images, "few": few, "other": bundled[1]}


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
        record = dict(json.loads((folder / f"{row.name}.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return record if {COMMAND, TABLES, VERSION} <= set(record) else None


def run_row(row: Row, words: Sequence[str], folder: Path) -> dict[str, Any]:
    """Run one benchmark, its output in a log beside its JSON file, and return what the JSON file holds.

    Raises:
        RuntimeError: it failed; the message is its last line.
    """
    log = folder / f"{row.name}.log"
    (folder / f"{row.name}.json").unlink(missing_ok=True)
    began = time.perf_counter()
    command = [sys.executable, "-m", f"benchmarks.{row.module}", *words]
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)
    record = read_record(row, folder)
    if done.returncode or record is None:
        lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").split("\n")]
        last = next(filter(None, reversed(lines)), "no output")
        reason = last if done.returncode else "no JSON file with its command, version and tables"
        raise RuntimeError(f"{reason} (exit code {done.returncode}, {log})")
    record[SECONDS] = time.perf_counter() - began
    write_atomically(folder / f"{row.name}.json", (json.dumps(record, indent=2) + "\n").encode())
    return record


def write_page(page: Path, folder: Path, command: str, photographs: str) -> None:
    """Write the page from all JSON files in the folder."""
    sections = []
    for row in ROWS:
        record = read_record(row, folder)
        if record is None:
            sections.append(f"## {row.title}\n\nNot measured yet.")
            continue
        note = f"{record[VERSION]}; {record.get(SECONDS, 0):.0f} s." + (f" Long: {row.long}." if row.long else "")
        sections.append(f"## {row.title}\n\n{record[TABLES]}\n\n{note}\n\n```\n{record[COMMAND]}\n```")
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
    began = time.perf_counter()
    failures: list[str] = []
    for number, row in enumerate(rows, 1):
        words = arguments_of(row, places, folder)
        record = None if arguments.again else read_record(row, folder)
        outcome = "measured before"
        try:
            command = command_line(f"python -m benchmarks.{row.module}", words)
            if record is None or (record[VERSION], record[COMMAND]) != (version, command):
                outcome = f"{run_row(row, words, folder)[SECONDS]:.0f} s"
        except RuntimeError as error:
            failures.append(row.name)
            outcome = f"failed: {error}"
        write_page(arguments.page, folder, arguments.command_line, photographs)
        elapsed = f"{time.perf_counter() - began:.0f} s in all"
        print(f"[{number}/{len(rows)}] {row.name}: {outcome} ({elapsed})", file=sys.stderr, flush=True)
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
