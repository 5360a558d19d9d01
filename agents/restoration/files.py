"""Which files a run restores, and what each result is called."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

TAG, EXPLAINED, SHEET = ".restored", ".explained", ".before-after"
"""``photo.jpg`` becomes ``photo.restored.png`` by default. Searching a folder skips these files, the figures
``photo.explained.png`` of ``imagerestore explain``, and sheets, ``photo.before-after.png``."""
STREAM = Path("-")
"""Stands for standard input among the files, and for standard output among the results."""
FORMATS = ("png", "jpg", "webp", "tiff", "same")
"""What results can be written as; "same" is the input's own format, or PNG for one that is only read."""


@dataclass(frozen=True)
class Job:
    """One file to restore."""

    source: Path
    output: Path
    page: int | None = None
    """The page or frame, from 1; None: the first."""
    sheet: Path | None = None
    """Where input and result are written side by side; None: nowhere."""


@dataclass
class Plan:
    """What a run does, decided before any work."""

    jobs: list[Job] = field(default_factory=list)
    problems: list[tuple[Path, str]] = field(default_factory=list)
    """Files that were named but cannot be restored, with the reason."""
    skipped: list[tuple[Path, str]] = field(default_factory=list)
    """Files of folders that are left out, with the reason."""


def plan(files: Sequence[Path], output: str | None, many: bool, file_format: str | None = None) -> Plan:
    """Decide which file is written where, before any work.

    Where two names would clash, results keep the suffix of their input: ``a.jpg.png`` and ``a.tif.png``.

    Args:
        files: files and folders; ``-`` is standard input.
        output: the value of ``-o``; ``-`` is standard output.
        many: whether ``output`` must be a folder.
        file_format: one of :data:`FORMATS`; None: that of ``output`` if it names a file, else PNG.

    Raises:
        ValueError: an output of the wrong kind, or two inputs that would be written to one file.
    """
    folder, named = _destination(output, many, file_format)
    if many and folder is None and STREAM in files:
        raise ValueError("standard input among several images: they need a folder to go to")
    found, result = _find(files, folder)
    places = [_place(source, inside, folder, file_format) for source, inside in found]
    counts = Counter(_key(place) for place in places)
    for (source, inside), place in zip(found, places, strict=True):
        target = named
        if target is None and source == STREAM and folder is None:
            target = STREAM
        if target is None:
            clash = counts[_key(place)] > 1
            target = _place(source, inside, folder, file_format, whole_name=True) if clash else place
        result.jobs.append(Job(source, target))
    sources: dict[Path, Path] = {}
    for job in result.jobs:
        other = sources.setdefault(_key(job.output), job.source)
        if other is not job.source:
            raise ValueError(f"{other} and {job.source} would both be written to {job.output}")
    return result


def of_every_page(jobs: Sequence[Job]) -> list[Job]:
    """The jobs, one for each page or frame of a file that has several: ``scan.2.png`` is the second."""
    from restore_env.images.decoding import page_count

    result = []
    for job in jobs:
        count = 1 if STREAM in (job.source, job.output) else page_count(job.source)
        stem, suffix = job.output.stem, job.output.suffix
        tag = TAG if stem.endswith(TAG) else ""
        names = [f"{stem.removesuffix(tag)}.{page}{tag}{suffix}" for page in range(1, count + 1)]
        pages = [Job(job.source, job.output.with_name(name), page) for page, name in enumerate(names, 1)]
        result += pages if count > 1 else [job]
    return result


def with_sheets(jobs: Sequence[Job]) -> list[Job]:
    """The jobs, each with a sheet beside its result; where two names would clash, they keep the result's suffix.

    Raises:
        ValueError: a result that goes to standard output.
    """
    if any(job.output == STREAM for job in jobs):
        raise ValueError("--before-after needs a result that is a file: -o names one")
    short = [job.output.with_name(f"{job.output.stem.removesuffix(TAG)}{SHEET}.png") for job in jobs]
    counts = Counter(_key(sheet) for sheet in short)
    return [
        replace(job, sheet=sheet if counts[_key(sheet)] == 1 else job.output.with_name(f"{job.output.name}{SHEET}.png"))
        for job, sheet in zip(jobs, short, strict=True)
    ]


def _key(path: Path) -> Path:
    return path.parent.resolve() / path.name


def _destination(output: str | None, many: bool, file_format: str | None) -> tuple[Path | None, Path | None]:
    """The folder that results go to, or the one file."""
    from restore_env.images.encoding import WRITABLE, check_writable

    if output is None:
        return None, None
    path = Path(output)
    if output == "-":
        if many:
            raise ValueError("several images cannot go to standard output: they need a folder to go to")
        return None, STREAM
    names_file = path.suffix.lower() in WRITABLE or path.is_file()
    if path.is_dir() or output.endswith(("/", os.sep)) or (many and not names_file):
        return path, None
    if many:
        raise ValueError(f"{path}: names a file; several images need a folder to go to")
    if not path.suffix:
        raise ValueError(f"{path}: cannot write a file without a suffix; {path}.png is a file, {path}/ a folder")
    if file_format is not None:
        raise ValueError(f"{path}: its suffix says the format; --format is for names that are chosen for you")
    check_writable(path)
    if not path.parent.is_dir():
        raise ValueError(f"{path}: no such folder as {path.parent}")
    return None, path


def _place(
    source: Path, inside: Path, folder: Path | None, file_format: str | None, *, whole_name: bool = False
) -> Path:
    """Where a file's result goes that has no name of its own."""
    name = (source.name if whole_name else source.stem) if source != STREAM else "stdin"
    suffix = written_suffix(source, file_format)
    return source.with_name(f"{name}{TAG}{suffix}") if folder is None else folder / inside.parent / f"{name}{suffix}"


def written_suffix(source: Path, file_format: str | None) -> str:
    """The suffix of a result in a format of :data:`FORMATS`; None: PNG."""
    from restore_env.images.formats import WRITTEN

    if file_format != "same":
        return f".{file_format or 'png'}"
    return source.suffix if source.suffix.lower() in WRITTEN else ".png"


def _find(files: Sequence[Path], output: Path | None) -> tuple[list[tuple[Path, Path]], Plan]:
    """The images, each with its path inside the folder that was named; and a plan of what is left out."""
    found: list[tuple[Path, Path]] = []
    result = Plan()
    for file in files:
        if file == STREAM:
            found.append((file, file))
        elif file.is_dir():
            images, others = _search(file, output)
            found += [(path, path.relative_to(file)) for path in images]
            result.skipped += [(path, "not a file of images by its name") for path in others]
            if not images:
                result.problems.append((file, "the folder holds no image files"))
        elif file.exists():
            found.append((file, Path(file.name)))
        else:
            result.problems.append((file, "no such file"))
    return found, result


def _search(folder: Path, output: Path | None) -> tuple[list[Path], list[Path]]:
    """A folder's images and its other files, without hidden ones and without the outputs of earlier runs."""
    from restore_env.images.files import list_images

    ours = None if output is None or folder.resolve() not in output.resolve().parents else output.resolve()

    def is_input(path: Path) -> bool:
        return not path.stem.endswith((TAG, EXPLAINED, SHEET)) and (ours is None or ours not in path.resolve().parents)

    images = list_images(folder)
    files = {path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")}
    return [path for path in images if is_input(path)], sorted(filter(is_input, files - {*images}))


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


def check_quality(quality: int | None, found: Plan) -> None:
    """Raise ``ValueError`` for a quality above 100, or one that no result can have."""
    from restore_env.images.formats import WRITTEN

    if quality is None:
        return
    if quality > 100:
        raise ValueError(f"--quality must lie in 1 to 100, got {quality}")
    kinds = [WRITTEN.get(job.output.suffix.lower()) for job in found.jobs if job.output != STREAM]
    if kinds and not any(kind is not None and kind.lossy for kind in kinds):
        raise ValueError("--quality is for results that are JPEG or WebP (--format jpg)")


def identities(paths: Iterable[Path | None]) -> set[tuple[int, int]]:
    """Device and inode of the existing files among ``paths``, for :func:`check_output`."""
    found = (path.stat() for path in paths if path is not None and path.exists())
    return {(status.st_dev, status.st_ino) for status in found}
