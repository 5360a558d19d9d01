"""Restores the files of a run one by one, each from decoding to writing, and says as plain data what became of it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.restoration.files import STREAM, Job, check_output, written_suffix

if TYPE_CHECKING:
    from agents.restoration.restorer import Restoration, Restorer
    from agents.restoration.tiled_episode import Progress
    from restore_env.images.decoding import Photo

ERRORS = (ValueError, OSError, RuntimeError, MemoryError)
"""Errors of one file after which the others are still restored."""
LISTED = 4
"""Regions that are printed of an image."""


@dataclass(frozen=True)
class JobOptions:
    """What is the same for all jobs of a run; the command line's options of these names."""

    page: int | None = None
    strict: bool = False
    strength: float = 1.0
    target: Path | None = None
    format: str | None = None
    quality: int | None = None
    strip: bool = False
    force: bool = False
    repeated: bool = False
    """Whether an earlier attempt at the same job may have ended at any moment: a result that exists is right if it has
    the same bytes."""


@dataclass(frozen=True)
class Outcome:
    """What became of a job."""

    row: dict[str, Any]
    """As a line of JSON: :func:`as_json`, or ``file`` and ``error``."""
    line: str = ""
    """As a line of text; empty if it failed."""
    traceback: str = ""
    """Of the error, if there was one."""

    @property
    def error(self) -> str | None:
        """Why it failed, in one line; None if it did not."""
        return self.row.get("error")


def failed(job: Job, error: BaseException | str) -> Outcome:
    """The outcome of a job that ended in an error; its message names the file."""
    from restore_env.errors import explained, one_line

    message = explained(error) if isinstance(error, BaseException) else error
    named = str(job.source) in message or str(job.output) in message or job.source == STREAM
    text = one_line(message if named else f"{job.source}: {message}")
    shown = "".join(traceback.format_exception(error)) if isinstance(error, BaseException) else ""
    return Outcome({"file": str(job.source), "error": text}, traceback=shown)


def check_job(job: Job, inputs: set[tuple[int, int]], force: bool) -> None:
    """Raise ``ValueError``, before any work, if a job's results must not or can not be written."""
    if job.output != STREAM:
        for output in filter(None, (job.output, job.sheet)):
            check_output(output, inputs, force)
    elif sys.stdout.isatty():
        raise ValueError("standard output is a terminal: -o names a file to write")


class JobRunner:
    """Restores one file after another.

    Args:
        options: of the run.
        open_restorer: makes the restorer, when the first photograph has been read: it imports PyTorch.
    """

    def __init__(self, options: JobOptions, open_restorer: Callable[[], Restorer]) -> None:
        self._options, self._open = options, open_restorer

    @cached_property
    def restorer(self) -> Restorer:
        """The restorer of all jobs."""
        return self._open()

    def run(self, job: Job, progress: Progress | None = None) -> Outcome:
        """Read, restore and write one file that :func:`check_job` has checked.

        Raises:
            ValueError: and others of :data:`ERRORS`: the restorer cannot be made, so none of the files can be restored.
        """
        try:
            photo = self._read(job)
        except ERRORS as error:
            return failed(job, error)
        restorer = self.restorer
        try:
            result, notes = self._restore(job, photo, restorer, progress)
        except ERRORS as error:
            return failed(job, error)
        row = (
            as_json(job, result)
            | ({"page": job.page} if job.page else {})
            | ({"before_after": str(job.sheet)} if job.sheet else {})
            | ({"warnings": notes} if notes else {})
        )
        return Outcome(row, as_line(job, result))

    def _read(self, job: Job) -> Photo:
        from restore_env.images.decoding import decode_image, read_image

        options = self._options
        if job.source == STREAM:
            data = sys.stdin.buffer.read()
            return decode_image(data, "standard input", strict=options.strict, page=options.page)
        return read_image(job.source, strict=options.strict, page=job.page or options.page)

    def _restore(
        self, job: Job, photo: Photo, restorer: Restorer, progress: Progress | None
    ) -> tuple[Restoration, list[str]]:
        """Restore and write one file; return the result and what the user should know."""
        from agents.restoration.before_after import side_by_side
        from restore_env.images.encoding import encode_image, write_image

        options = self._options
        result = restorer.restore(photo, options.target, progress=progress, strength=options.strength)
        encoding: dict[str, Any] = {"quality": options.quality, "strip": options.strip}
        writing: dict[str, Any] = {"replace_existing": options.force, "accept_same": options.repeated}
        if job.output == STREAM:
            suffix = written_suffix(job.source, options.format)
            data, lost = encode_image(result.photo, suffix, "standard output", **encoding)
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        else:
            job.output.parent.mkdir(parents=True, exist_ok=True)
            lost = result.save(job.output, **encoding, **writing)
        if job.sheet is not None:
            write_image(job.sheet, side_by_side(photo, result.photo), **writing)
        return result, [*photo.notes, *lost]


def as_json(job: Job, result: Restoration) -> dict[str, Any]:
    """One file's result as plain data."""
    height, width = result.image.shape[:2]
    row: dict[str, Any] = {
        "file": str(job.source),
        "output": str(job.output),
        "size": [width, height],
        "scale": result.scale,
        "toolchain": list(result.toolchain),
        "regions": [{"toolchain": list(region.toolchain), "share": region.share} for region in result.regions],
        "votes": [
            {"action": vote.action, "counts": dict(vote.counts), "predicted_gain": vote.predicted}
            for vote in result.votes
        ],
        "predicted_gain": result.predicted_gain,
        "taken_back": list(result.taken_back),
        "gmacs": result.gmacs,
        "seconds": result.seconds,
    }
    if result.psnr_before is not None:
        row |= {"psnr_before": result.psnr_before, "psnr_after": result.psnr_after}
    return row


def chains_of(result: Restoration) -> str:
    """The chain of an image; or those of its largest regions, each with its share of the area."""
    named = [", ".join(region.toolchain) or "no tool" for region in result.regions]
    if len(named) == 1:
        return named[0]
    shares = [region.share for region in result.regions]
    parts = [f"{chain} on {share:.0%}" for chain, share in zip(named[:LISTED], shares, strict=False)]
    return "; ".join([*parts, *([f"others on {sum(shares[LISTED:]):.0%}"] if len(named) > LISTED else [])])


def as_line(job: Job, result: Restoration) -> str:
    """One file's result as one line."""
    line = f"{job.source} -> {job.output}: {chains_of(result)}"
    if result.predicted_gain:
        line += f"; predicted gain {result.predicted_gain:+.1f} dB"
    if result.taken_back:
        line += f"; taken back: {', '.join(result.taken_back)}"
    if result.psnr_before is not None and result.psnr_after is not None:
        gain = result.psnr_after - result.psnr_before
        line += f"; PSNR {result.psnr_before:.2f} -> {result.psnr_after:.2f} dB ({gain:+.2f})"
    return " ".join(line.split())
