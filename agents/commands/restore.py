"""``imagerestore restore``: restore photographs or folders of them."""

from __future__ import annotations

import argparse
import json
import os
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.command_line import positive_int, print_error

if TYPE_CHECKING:
    from agents.restoration.restorer import Restoration, Restorer

TAG, EXPLAINED = ".restored", ".explained"
"""``photo.jpg`` becomes ``photo.restored.png`` by default. Searching a folder skips these files and the figures
``photo.explained.png`` of ``imagerestore explain``."""
ERRORS = (ValueError, OSError, RuntimeError, MemoryError)
"""Errors of one file after which the others are still restored."""


@dataclass(frozen=True)
class Job:
    """One file to restore."""

    source: Path
    output: Path


def register(commands: Any) -> None:
    """Add ``restore``."""
    parser = commands.add_parser(
        "restore",
        help="restore photographs or folders of them",
        description="Restores each photograph by a chain of tools; tiles of the image vote on each tool.",
    )
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="PNG, JPEG, WebP, TIFF, BMP or GIF, or a folder of them"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="output file (.png, .jpg, .webp or .tif) for one FILE, or a folder, which gets NAME.png and keeps the"
        " sub-folders of a folder FILE (default: NAME.restored.png next to the input)",
    )
    parser.add_argument("--force", action="store_true", help="overwrite files that exist (never an input)")
    add_scale(parser)
    parser.add_argument("--target", type=Path, metavar="FILE", help="ground truth of the one FILE, to measure PSNR")
    add_restorer(parser)
    parser.add_argument(
        "--json", action="store_true", help="print results as JSON: an object for one FILE, else a list"
    )
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
    """Run ``imagerestore restore``; 2 if a file could not be restored."""
    many = len(arguments.files) > 1 or arguments.files[0].is_dir()
    if many and arguments.target is not None:
        raise ValueError("--target goes with one FILE; for folders there is imagerestore evaluate")
    jobs, problems = plan(arguments.files, arguments.output, many)
    for problem in problems:
        print_error(problem)
    failed = bool(problems)
    inputs = identities([*(job.source for job in jobs), arguments.target])
    results: list[dict[str, Any]] = []
    restorer = open_restorer(arguments) if jobs else None
    for number, job in enumerate(jobs, 1):
        assert restorer is not None
        try:
            check_output(job.output, inputs, arguments.force)
            with progress_bar(f"[{number}/{len(jobs)}] {job.source.name}") as report:
                result = restorer.restore(job.source, arguments.target, progress=report)
            job.output.parent.mkdir(parents=True, exist_ok=True)
            result.save(job.output)
        except ERRORS as error:
            failed = True
            if arguments.debug:
                traceback.print_exc()
            message = str(error) or type(error).__name__
            named = str(job.source) in message or str(job.output) in message
            print_error(message if named else f"{job.source}: {message}")
            continue
        if arguments.json:
            results.append(as_json(job, result))
        else:
            print(as_line(job, result), flush=True)
    if arguments.json and (many or results):
        print(json.dumps(results if many else results[0], indent=2))
    return 2 if failed else 0


def plan(files: Sequence[Path], output: str | None, many: bool) -> tuple[list[Job], list[str]]:
    """Decide which file is written where, before any work.

    Args:
        files: files and folders.
        output: the value of ``-o``.
        many: whether ``output`` must be a folder.

    Returns:
        The jobs, and an error line for each of the ``files`` without one.

    Raises:
        ValueError: an output of the wrong kind, or two inputs that would be written to one file.
    """
    from restore_env.images.encoding import WRITABLE, check_writable

    folder: Path | None = None
    if output is not None:
        path = Path(output)
        names_file = path.suffix.lower() in WRITABLE or path.is_file()
        if path.is_dir() or output.endswith(("/", os.sep)) or (many and not names_file):
            folder = path
        elif many:
            raise ValueError(f"{path}: names a file; several images need a folder to go to")
        elif not path.suffix:
            raise ValueError(f"{path}: cannot write a file without a suffix; {path}.png is a file, {path}/ a folder")
        else:
            check_writable(path)
            if not path.parent.is_dir():
                raise ValueError(f"{path}: no such folder as {path.parent}")

    def job(file: Path, inside: Path) -> Job:
        if folder is not None:
            return Job(file, folder / inside.with_suffix(".png"))
        return Job(file, Path(output) if output else file.with_name(f"{file.stem}{TAG}.png"))

    jobs: list[Job] = []
    problems: list[str] = []
    for file in files:
        if file.is_dir():
            found = _search(file, folder)
            jobs += [job(path, path.relative_to(file)) for path in found]
            problems += [] if found else [f"{file}: the folder holds no image files"]
        elif file.exists():
            jobs.append(job(file, Path(file.name)))
        else:
            problems.append(f"{file}: no such file")
    sources: dict[Path, Path] = {}
    for one in jobs:
        other = sources.setdefault(one.output.parent.resolve() / one.output.name, one.source)
        if other is not one.source:
            raise ValueError(f"{other} and {one.source} would both be written to {one.output}")
    return jobs, problems


def _search(folder: Path, output: Path | None) -> list[Path]:
    """A folder's images without the outputs of earlier runs."""
    from restore_env.images.sources import list_images

    images = [path for path in list_images(folder) if not path.stem.endswith((TAG, EXPLAINED))]
    if output is None or folder.resolve() not in output.resolve().parents:
        return images
    return [path for path in images if output.resolve() not in path.resolve().parents]


def check_output(output: Path, inputs: set[tuple[int, int]], force: bool) -> None:
    """Raise ``ValueError``, before any work, if the output must not or can not be written."""
    if identities([output]) & inputs:
        raise ValueError(f"{output}: is an input of this run and is not overwritten")
    if output.is_dir():
        raise ValueError(f"{output}: is a folder")
    if os.path.lexists(output) and not force:
        raise ValueError(f"{output}: exists; --force overwrites it")
    nearest = next(parent for parent in output.absolute().parents if parent.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"{output}: cannot be written, {nearest} is not a folder that can be written to")


def identities(paths: Iterable[Path | None]) -> set[tuple[int, int]]:
    """Device and inode of the existing files among ``paths``, for :func:`check_output`."""
    found = (path.stat() for path in paths if path is not None and path.exists())
    return {(status.st_dev, status.st_ino) for status in found}


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
