"""Every benchmark in short, and a page of their tables: ``python -m benchmarks.short``.

Each row of ``benchmarks/short_table.py`` runs in a process of its own and leaves a JSON file; the page is made of these
files. One that fails stops no other. What the same version has measured on the same photographs is not measured again,
so an interrupted run goes on; after changes that are not committed give ``--again``. Few patches and seconds of
training show that all works and how far apart things are, roughly: quote the long versions.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.command_line import OneLineParser, run_guarded
from benchmarks.report.machine import environment
from benchmarks.report.publishing import COMMAND, TABLES, VERSION, parse
from benchmarks.short_table import PLACES, ROWS, Row
from restore_env.images.files import write_atomically
from restore_env.images.sources import embedded_paths, list_images
from tools_zoo.training.cards import command_line, replace_section, source_version, write_card

PROGRAM = "benchmarks.short"
FOLDER, PAGE = Path("runs/bench"), Path("docs/bench.md")
COPIED = ".copied"
"""In the names of copies of photographs, by which they are known again."""
FEW = 3
"""How many photographs are restored whole."""
SECONDS, PROCESSOR = "seconds", "processor_seconds"
"""What is added to a row's JSON file: how long it took by the clock, and of processor time."""


def bundled(folder: Path) -> tuple[Path, Path]:
    """Copy scikit-image's photographs into two folders: those that are restored, and others."""
    paths = embedded_paths()
    return copied(paths[::2], folder / "photographs"), copied(paths[1::2], folder / "others")


def copied(paths: Sequence[Path], folder: Path) -> Path:
    """A folder that holds copies of these files and nothing else.

    Raises:
        ValueError: it holds files that are not of an earlier run; nothing is deleted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number:04d}{COPIED}{path.suffix}" for number, path in enumerate(paths)]
    strange = [path.name for path in folder.iterdir() if COPIED not in path.name]
    if strange:
        raise ValueError(f"{folder}: holds {strange[0]}, which is none of a benchmark's copies; choose another --out")
    for path in set(folder.iterdir()) - {folder / name for name in names}:
        path.unlink()
    for name, path in zip(names, paths, strict=True):
        write_atomically(folder / name, path.read_bytes())
    return folder


@dataclass(frozen=True)
class Photographs:
    """The folders that rows name, and what a page says of them."""

    images: Path
    few: Path
    other: Path
    words: str

    @classmethod
    def of(cls, images: Path | None, folder: Path) -> Photographs:
        """Those of a folder, or the bundled ones.

        Raises:
            ValueError: no image files in the folder.
        """
        restored, other = bundled(folder)
        if images is None:
            return cls(restored, restored, other, "photographs that come with scikit-image")
        paths = list_images(images)
        if not paths:
            raise ValueError(f"{images}: no image files in this folder")
        few = copied(paths[:: -(-len(paths) // FEW)], folder / "few")
        return cls(images, few, other, f"{len(paths)} photographs of {os.path.relpath(images)}, or {FEW} of them")


def words_of(row: Row, photographs: Photographs, folder: Path) -> list[str]:
    """What a row's process is given: its own arguments, then where its JSON file goes."""
    paths = (photographs.images, photographs.few, photographs.other)
    places = {name: os.path.relpath(path) for name, path in zip(PLACES, paths, strict=True)}
    return [
        *(word.format(**places) for word in row.arguments.split()),
        "--json",
        f"{os.path.relpath(folder)}/{row.name}.json",
    ]


def read_record(row: Row, words: Sequence[str], folder: Path) -> dict[str, Any] | None:
    """What the row's JSON file holds, if the same words made it."""
    command = command_line(f"python -m benchmarks.{row.module}", words)
    try:
        record = dict(json.loads((folder / f"{row.name}.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    told = record.get(COMMAND) == command and isinstance(record.get(TABLES), str) and VERSION in record
    return record if told else None


def run_row(row: Row, words: Sequence[str], folder: Path) -> dict[str, Any]:
    """Run one benchmark; what it says goes into a log beside its JSON file.

    Returns:
        What the JSON file holds then.

    Raises:
        RuntimeError: it failed; the message is its last line.
    """
    log = folder / f"{row.name}.log"
    began, used = time.perf_counter(), _processor_seconds()
    command = [sys.executable, "-m", f"benchmarks.{row.module}", *words]
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)
    record = read_record(row, words, folder)
    if done.returncode or record is None:
        said = log.read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line.strip() for line in reversed(said) if line.strip()), "it said nothing")
        reason = last if done.returncode else "it wrote no JSON file with its command, version and tables"
        raise RuntimeError(f"{reason} (exit code {done.returncode}, {log})")
    record |= {SECONDS: time.perf_counter() - began, PROCESSOR: _processor_seconds() - used}
    write_atomically(folder / f"{row.name}.json", (json.dumps(record, indent=2) + "\n").encode())
    return record


def _processor_seconds() -> float:
    """Of all processes that were waited for, so far; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def section_of(row: Row, record: dict[str, Any], photographs: str) -> str:
    """A row's section of the page, from its JSON file."""
    long = f" The long version: {row.long}." if row.long else ""
    took = f"{record.get(SECONDS, 0):.0f} s, {record.get(PROCESSOR, 0):.0f} s of processor time"
    return (
        f"## {row.title}\n\n{record[TABLES]}\n\nOn {photographs}; {record[VERSION]}; {took}.{long}\n\n"
        f"```\n{record[COMMAND]}\n```"
    )


def heading(command: str) -> str:
    """The top of the page: what this is, and the machine."""
    facts = environment()
    packages = ", ".join(f"{name} {number}" for name, number in facts["packages"].items())
    return f"""# Every benchmark in short

Written by the command below, no number by hand. Few patches and seconds of training: this shows that everything works
and roughly how things compare; the pages that each section names have the long versions.

Latest run: {facts["time"]}, {facts["processor"] or facts["system"]}, {facts["cores"]} cores, {facts["threads"]} PyTorch
threads, {facts["cpu_capability"]}, Python {facts["python"]}, {packages}, {facts["version"]}.

```
{command}
```"""


def refresh(page: Path, text: str, sections: dict[str, str]) -> None:
    """Write the page: its top, the given sections anew, all others of the table as they were."""
    write_card(page, text, [row.name for row in ROWS])
    known = page.read_text(encoding="utf-8")
    for row in ROWS:
        empty = f"<!-- {row.name}:begin -->\n<!-- {row.name}:end -->" in known
        section = sections.get(row.name, f"## {row.title}\n\nNot measured yet." if empty else None)
        if section is not None:
            replace_section(page, row.name, section)


def chosen(names: Sequence[str] | None) -> list[Row]:
    """The rows of these names, all without names; raise ``ValueError`` for a name that no row has."""
    unknown = sorted(set(names or ()) - {row.name for row in ROWS})
    if unknown:
        raise ValueError(f"unknown benchmark {unknown[0]!r}: choose from {', '.join(row.name for row in ROWS)}")
    return [row for row in ROWS if not names or row.name in names]


def listing() -> str:
    """The table for ``--list``: names and commands."""
    width = max(len(row.name) for row in ROWS)
    return "\n".join(f"{row.name:<{width}}  python -m benchmarks.{row.module} {row.arguments}".rstrip() for row in ROWS)


def run(arguments: argparse.Namespace) -> int:
    """Measure what is not measured yet, write the page, and say what failed."""
    rows = chosen(arguments.only)
    if arguments.list:
        print(listing())
        return 0
    if not arguments.page.parent.is_dir():
        raise ValueError(f"{arguments.page.parent}: no such folder")
    folder: Path = arguments.out
    folder.mkdir(parents=True, exist_ok=True)
    photographs, version = Photographs.of(arguments.images, folder), source_version()
    began = time.perf_counter()
    sections: dict[str, str] = {}
    failures: list[str] = []
    for number, row in enumerate(rows, 1):
        words = words_of(row, photographs, folder)
        record = None if arguments.again else read_record(row, words, folder)
        told = "measured before"
        try:
            if record is None or record[VERSION] != version:
                record = run_row(row, words, folder)
                told = f"{record[SECONDS]:.0f} s"
        except RuntimeError as error:
            failures.append(row.name)
            told = f"failed: {error}"
        else:
            sections[row.name] = section_of(row, record, photographs.words)
            refresh(arguments.page, heading(arguments.command_line), sections)
        elapsed = f"{time.perf_counter() - began:.0f} s in all"
        print(f"[{number}/{len(rows)}] {row.name}: {told} ({elapsed})", file=sys.stderr, flush=True)
    print(f"{len(sections)} of {len(rows)} benchmarks are in {arguments.page}")
    if failures:
        print(f"{PROGRAM}: failed: {', '.join(failures)}", file=sys.stderr)
    return 1 if failures else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line: exit code 0 if all is measured, 1 if a benchmark failed, 2 for a mistake."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--images", type=Path, metavar="DIR", help="photographs (default: scikit-image's, bundled)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these benchmarks (default: all)")
    parser.add_argument("--again", action="store_true", help="measure what was measured, too")
    parser.add_argument("--list", action="store_true", help="print names and commands, and run nothing")
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="DIR", help=f"for files (default {FOLDER})")
    parser.add_argument("--page", type=Path, default=PAGE, metavar="FILE", help=f"Markdown (default {PAGE})")
    parsed = parse(parser, arguments)
    return run_guarded(lambda: run(parsed), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
