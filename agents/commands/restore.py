"""``imagerestore restore``: restore photographs or folders of them."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.command_line import positive_int, print_error
from agents.restoration.files import (
    FORMATS,
    STREAM,
    Job,
    check_output,
    check_quality,
    identities,
    of_every_page,
    plan,
    written_suffix,
)

if TYPE_CHECKING:
    from agents.restoration.restorer import Restoration, Restorer

ERRORS = (ValueError, OSError, RuntimeError, MemoryError)
"""Errors of one file after which the others are still restored."""


def register(commands: Any) -> None:
    """Add ``restore``."""
    parser = commands.add_parser(
        "restore",
        help="restore photographs or folders of them",
        description="Restores each photograph by a chain of tools; tiles of the image vote on each tool.",
    )
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="an image file, a folder of them, or - for standard input"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="output file (.png, .jpg, .webp or .tif) for one FILE, - for standard output, or a folder, which gets"
        " NAME.png and keeps the sub-folders of a folder FILE (default: NAME.restored.png next to the input)",
    )
    parser.add_argument(
        "--format", choices=FORMATS, help="what results are written as where -o names no file (default png)"
    )
    parser.add_argument("--quality", type=positive_int, metavar="N", help="1 to 100, of JPEG and lossy WebP results")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--force", action="store_true", help="overwrite files that exist (never an input)")
    existing.add_argument("--skip-existing", action="store_true", help="leave out files whose result exists")
    parser.add_argument("--strip", action="store_true", help="write no metadata and no colour profile")
    parser.add_argument("--strict", action="store_true", help="refuse JPEGs that are cut short")
    pages = parser.add_mutually_exclusive_group()
    pages.add_argument("--page", type=positive_int, metavar="N", help="the page or frame, from 1 (default: the first)")
    pages.add_argument("--all-pages", action="store_true", help="each page or frame, to NAME.1.png, NAME.2.png, ...")
    parser.add_argument(
        "--strength", type=float, default=1.0, metavar="S", help="share of the change that is applied, 0 to 1 (default)"
    )
    add_scale(parser)
    parser.add_argument("--target", type=Path, metavar="FILE", help="ground truth of the one FILE, to measure PSNR")
    add_restorer(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, a line for each file as it is done")
    parser.set_defaults(run=restore)


def add_scale(parser: argparse.ArgumentParser) -> None:
    """Add ``--scale``."""
    text = "upscale factor: 4 for photographs of low resolution (default 1)"
    parser.add_argument("--scale", type=int, choices=(1, 4), default=1, help=text)


def add_restorer(parser: argparse.ArgumentParser) -> None:
    """Add the options of toolbox, agent and device."""
    parser.add_argument("--toolbox", default="default", metavar="NAME|FOLDER", help="shipped name, or a folder")
    parser.add_argument(
        "--policy", metavar="NAME|FILE", help="the agent: shipped name, or a file (default: the toolbox's own)"
    )
    parser.add_argument("--max-steps", type=positive_int, default=3, metavar="N", help="most tools (default 3)")
    parser.add_argument(
        "--super-resolver",
        metavar="NAME|FILE",
        help="sft_gan, sed, bicubic_x4, or a file (default: the agent's choice; for an agent without super-resolvers"
        " sft_gan)",
    )
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, ...")
    parser.add_argument(
        "--backend",
        default="torch",
        metavar="NAME",
        help="runs the tools on a CPU: torch (default), eager, or with its extra ncnn, which is the fastest",
    )


def open_restorer(arguments: argparse.Namespace) -> Restorer:
    """Make the restorer from the arguments of :func:`add_restorer` and ``scale`` (None: given with each image).

    Raises:
        ValueError: an argument that names nothing, or a super-resolver where nothing is upscaled.
    """
    from agents.restoration.restorer import Restorer

    if arguments.super_resolver is not None and arguments.scale == 1:
        raise ValueError("--super-resolver needs --scale 4: with --scale 1 nothing is upscaled")
    names = ("toolbox", "policy", "device", "max_steps", "super_resolver", "backend")
    return Restorer(scale=arguments.scale or 1, **{name: getattr(arguments, name) for name in names})


def restore(arguments: argparse.Namespace) -> int:
    """Run ``imagerestore restore``; 1 if a file was left out, 2 if none was restored for that."""
    many = len(arguments.files) > 1 or arguments.files[0].is_dir()
    if many and arguments.target is not None:
        raise ValueError("--target goes with one FILE; for folders there is imagerestore evaluate")
    if not 0 <= arguments.strength <= 1:
        raise ValueError(f"--strength must lie in 0 to 1, got {arguments.strength:g}")
    found = plan(arguments.files, arguments.output, many, arguments.format)
    report = Report(arguments.json, to_stderr=any(job.output == STREAM for job in found.jobs))
    check_quality(arguments.quality, found)
    for file, reason in found.problems:
        report.failed(file, f"{file}: {reason}")
    jobs = of_every_page(found.jobs) if arguments.all_pages else found.jobs
    inputs = identities([*(job.source for job in found.jobs), arguments.target])
    restorer = open_restorer(arguments) if found.jobs else None
    clock = time.monotonic()
    for number, job in enumerate(jobs, 1):
        assert restorer is not None
        if arguments.skip_existing and os.path.lexists(job.output):
            report.skipped(job.source, f"{job.output} exists", counts=False)
            continue
        label = f"[{number}/{len(jobs)}] {job.source.name}{remaining(clock, number, len(jobs))}"
        try:
            result, notes = restore_one(job, restorer, arguments, inputs, label)
        except ERRORS as error:
            if arguments.debug:
                traceback.print_exc()
            message = str(error) or type(error).__name__
            named = str(job.source) in message or str(job.output) in message or job.source == STREAM
            report.failed(job.source, message if named else f"{job.source}: {message}")
            continue
        report.done(job, result, notes)
    for file, reason in found.skipped:
        report.skipped(file, reason)
    return report.finish(many or len(jobs) > 1)


def restore_one(
    job: Job, restorer: Restorer, arguments: argparse.Namespace, inputs: set[tuple[int, int]], label: str
) -> tuple[Restoration, list[str]]:
    """Read, restore and write one file; return the result and what the user should know."""
    from restore_env.images.decoding import decode_image, read_image
    from restore_env.images.encoding import encode_image

    streamed = job.output == STREAM
    if not streamed:
        check_output(job.output, inputs, arguments.force)
    elif sys.stdout.isatty():
        raise ValueError("standard output is a terminal: -o names a file to write")
    if job.source == STREAM:
        data = sys.stdin.buffer.read()
        photo = decode_image(data, "standard input", strict=arguments.strict, page=arguments.page)
    else:
        photo = read_image(job.source, strict=arguments.strict, page=job.page or arguments.page)
    with progress_bar(label) as show:
        result = restorer.restore(photo, arguments.target, progress=show, strength=arguments.strength)
    options = {"quality": arguments.quality, "strip": arguments.strip}
    if streamed:
        suffix = written_suffix(job.source, arguments.format)
        data, lost = encode_image(result.photo, suffix, "standard output", **options)
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        job.output.parent.mkdir(parents=True, exist_ok=True)
        lost = result.save(job.output, **options, replace_existing=arguments.force)
    return result, [*photo.notes, *lost]


def remaining(start: float, number: int, count: int) -> str:
    """The time that is left before file ``number`` of ``count``, as words; empty at the first."""
    if number == 1:
        return ""
    seconds = (time.monotonic() - start) / (number - 1) * (count - number + 1)
    return f", {seconds / 60:.0f} min left" if seconds > 90 else f", {seconds:.0f} s left"


class Report:
    """Prints the results of a run: a line for each file as it goes, then the files that were left out, and the counts.

    Args:
        as_objects: print lines of JSON.
        to_stderr: print them on standard error, since standard output gets an image.
    """

    def __init__(self, as_objects: bool, *, to_stderr: bool = False) -> None:
        self._as_objects, self._stream = as_objects, sys.stderr if to_stderr else sys.stdout
        self._counts = {"restored": 0, "unchanged": 0, "skipped": 0, "failed": 0}
        self._left_out: list[str] = []
        self._complete = True

    def done(self, job: Job, result: Restoration, notes: Sequence[str]) -> None:
        """Print a file that was written."""
        self._counts["restored" if result.toolchain else "unchanged"] += 1
        for note in notes:
            print_error(f"{job.source}: {note}", kind="warning")
        row = (
            as_json(job, result)
            | ({"page": job.page} if job.page else {})
            | ({"warnings": list(notes)} if notes else {})
        )
        self._print(json.dumps(row) if self._as_objects else as_line(job, result))

    def failed(self, file: Path, message: str) -> None:
        """Print a file that could not be restored."""
        self._counts["failed"] += 1
        self._complete = False
        print_error(message)
        if self._as_objects:
            self._print(json.dumps({"file": str(file), "error": " ".join(message.split())}))

    def skipped(self, file: Path, reason: str, *, counts: bool = True) -> None:
        """Note a file that was left out; ``counts``: the exit code is not 0 because of it."""
        self._counts["skipped"] += 1
        self._complete = self._complete and not counts
        self._left_out.append(f"{file}: {reason}")
        if self._as_objects:
            self._print(json.dumps({"file": str(file), "skipped": reason}))

    def finish(self, many: bool) -> int:
        """Print what was left out, and the counts if there were several files; return the exit code."""
        for line in self._left_out:
            print_error(line, kind="skipped")
        written = self._counts["restored"] + self._counts["unchanged"]
        if many and (written or sum(self._counts.values()) > 1):
            print(f"imagerestore: {', '.join(f'{n} {what}' for what, n in self._counts.items())}", file=sys.stderr)
        if self._complete:
            return 0
        return 1 if written else 2

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[str, float], None]]:
    """Show a progress bar on standard error if it is a terminal; yield a function that updates it."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    texts = [TextColumn(f"{{task.{name}}}", markup=False) for name in ("description", "fields[what]")]
    columns = (texts[0], BarColumn(), texts[1], TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as display:
        task = display.add_task(label, total=1.0, what="reading")
        yield lambda what, share: display.update(task, completed=share, what=what)


def as_json(job: Job, result: Restoration) -> dict[str, Any]:
    """One file's result as plain data."""
    height, width = result.image.shape[:2]
    row: dict[str, Any] = {
        "file": str(job.source),
        "output": str(job.output),
        "size": [width, height],
        "scale": result.scale,
        "toolchain": list(result.toolchain),
        "votes": [{"action": vote.action, "counts": dict(vote.counts)} for vote in result.votes],
        "gmacs": result.gmacs,
        "seconds": result.seconds,
    }
    if result.psnr_before is not None:
        row |= {"psnr_before": result.psnr_before, "psnr_after": result.psnr_after}
    return row


def as_line(job: Job, result: Restoration) -> str:
    """One file's result as one line."""
    chain = ", ".join(result.toolchain) or "no tool"
    line = f"{job.source} -> {job.output}: {chain}"
    if result.psnr_before is not None and result.psnr_after is not None:
        gain = result.psnr_after - result.psnr_before
        line += f"; PSNR {result.psnr_before:.2f} -> {result.psnr_after:.2f} dB ({gain:+.2f})"
    return " ".join(line.split())
