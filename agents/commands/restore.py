"""``imagerestore restore``: restore photographs or folders of them."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.command_line import non_negative_float, positive_int, print_error, progress_bar
from agents.restoration import CAUTION
from agents.restoration.files import (
    FORMATS,
    STREAM,
    Job,
    check_quality,
    identities,
    of_every_page,
    plan,
    with_sheets,
)
from agents.restoration.jobs import ERRORS, JobOptions, JobRunner, Outcome, check_job, failed

if TYPE_CHECKING:
    from agents.restoration.restorer import Restorer

EXAMPLES = """\
examples:
  imagerestore restore photo.jpg                       to photo.restored.png
  imagerestore restore photos/ -o restored/            a folder with its sub-folders
  imagerestore restore small.jpg --scale 4             four times as high and wide
  imagerestore restore photo.jpg --tools denoise_2,deblur_1 --strength 0.7
"""


def register(commands: Any) -> None:
    """Add ``restore``."""
    parser = commands.add_parser(
        "restore",
        help="restore photographs or folders of them",
        usage="imagerestore restore [OPTION ...] FILE [FILE ...]",
        description="Restores each photograph by a chain of tools, which an agent chooses for it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="an image, a folder of them, or - for standard input"
    )
    results = parser.add_argument_group("results")
    results.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="a file (.png, .jpg, .webp or .tif), - for standard output, or a folder, in which sub-folders of a folder"
        " FILE are kept (default: NAME.restored.png beside each input)",
    )
    results.add_argument("--format", choices=FORMATS, help="where -o names no file (default png)")
    results.add_argument("--quality", type=positive_int, metavar="N", help="1 to 100, of JPEG and lossy WebP")
    results.add_argument("--strip", action="store_true", help="write no metadata and no colour profile")
    results.add_argument("--before-after", action="store_true", help="both side by side, to NAME.before-after.png")
    existing = results.add_mutually_exclusive_group()
    existing.add_argument("--force", action="store_true", help="overwrite files that exist (never an input)")
    existing.add_argument("--skip-existing", action="store_true", help="leave out files whose result exists")
    inputs = parser.add_argument_group("inputs")
    pages = inputs.add_mutually_exclusive_group()
    pages.add_argument("--page", type=positive_int, metavar="N", help="the page or frame, from 1 (default: the first)")
    pages.add_argument("--all-pages", action="store_true", help="each page or frame, to NAME.1.png, NAME.2.png, ...")
    inputs.add_argument("--strict", action="store_true", help="refuse JPEGs that are cut short")
    amount = parser.add_argument_group("amount and size")
    amount.add_argument(
        "--strength", type=float, default=1.0, metavar="S", help="share of the change that is applied, 0 to 1 (default)"
    )
    add_scale(amount)
    add_restorer(parser, chain=True)
    machines = parser.add_argument_group("many machines")
    machines.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="by the workers of a Ray cluster (auto, HOST:PORT; without ADDRESS: of this machine); needs the extra ray",
    )
    machines.add_argument(
        "--ray-workers", type=positive_int, metavar="N", help="with --ray (default: one for each CPU, or GPU)"
    )
    report = parser.add_argument_group("report")
    report.add_argument("--target", type=Path, metavar="FILE", help="ground truth of the one FILE, to measure PSNR")
    report.add_argument("--json", action="store_true", help="a line of JSON for each file as it is done")
    parser.set_defaults(run=restore)


def add_scale(parser: Any) -> None:
    """Add ``--scale`` to a parser or a group of its options."""
    text = "upscale factor; 2 is 4, then reduced (default 1)"
    parser.add_argument("--scale", type=int, choices=(1, 2, 4), default=1, help=text)


def add_restorer(parser: argparse.ArgumentParser, *, chain: bool = False) -> None:
    """Add the options of agent, toolbox and device; with ``chain`` also ``--tools`` in place of an agent."""
    tools = parser.add_argument_group("agent and tools")
    chosen = tools.add_mutually_exclusive_group()
    chosen.add_argument(
        "--policy", metavar="NAME|FILE", help="the agent: shipped name, or a file (default: the toolbox's own)"
    )
    if chain:
        chosen.add_argument(
            "--tools",
            type=tool_names,
            metavar="A,B,...",
            help="these tools in this order: no agent chooses",
        )
    tools.add_argument("--toolbox", default="default", metavar="NAME|FOLDER", help="shipped name, or a folder")
    tools.add_argument(
        "--caution",
        type=non_negative_float,
        default=CAUTION,
        metavar="DB",
        help="smallest predicted gain for which the agent applies a tool (default %(default)s)",
    )
    tools.add_argument(
        "--regions", action="store_true", help="every part of the photograph gets its own chain of tools (scale 1)"
    )
    tools.add_argument(
        "--max-steps", type=positive_int, default=3, metavar="N", help="most tools that the agent applies (default 3)"
    )
    tools.add_argument(
        "--super-resolver",
        metavar="NAME|FILE",
        help="upscales: sft_gan, sed, light, bicubic_x4, or a file (default: the agent's choice, else sft_gan)",
    )
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, ...")
    machine.add_argument(
        "--backend",
        default="torch",
        metavar="NAME",
        help="runs the tools on a CPU: torch (default), eager, or with its extra ncnn, which is the fastest",
    )


def tool_names(text: str) -> tuple[str, ...]:
    """Parse names of tools, separated by commas."""
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of tools such as denoise_2,deblur_1")
    return names


def open_restorer(arguments: argparse.Namespace) -> Restorer:
    """Make the restorer from the arguments of :func:`add_restorer` and ``scale`` (None: given with each image).

    Raises:
        ValueError: an argument that names nothing, or some that do not go together.
    """
    options = restorer_options(arguments)
    from agents.restoration.restorer import Restorer

    return Restorer(**options)


def restorer_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What :func:`add_restorer` has parsed, as arguments of :class:`agents.restoration.restorer.Restorer`.

    Raises:
        ValueError: options that do not go together.
    """
    if arguments.super_resolver is not None and arguments.scale == 1:
        raise ValueError("--super-resolver needs --scale 2 or 4: with --scale 1 nothing is upscaled")
    if arguments.regions and getattr(arguments, "tools", None):
        raise ValueError("--regions needs an agent that chooses: leave --tools out")
    names = ("toolbox", "device", "max_steps", "super_resolver", "backend", "caution", "regions")
    policy = getattr(arguments, "tools", None) or arguments.policy
    return {"policy": policy, "scale": arguments.scale or 1, **{name: getattr(arguments, name) for name in names}}


def restore(arguments: argparse.Namespace) -> int:
    """Run ``imagerestore restore``; 1 if a file was left out, 2 if none was restored for that."""
    many = len(arguments.files) > 1 or arguments.files[0].is_dir()
    if many and arguments.target is not None:
        raise ValueError("--target goes with one FILE; for folders there is imagerestore evaluate")
    if not 0 <= arguments.strength <= 1:
        raise ValueError(f"--strength must lie in 0 to 1, got {arguments.strength:g}")
    found = plan(arguments.files, arguments.output, many, arguments.format)
    if arguments.ray is not None:
        check_ray(arguments, found.jobs)
    elif arguments.ray_workers is not None:
        raise ValueError("--ray-workers is for --ray")
    report = Report(arguments, to_stderr=any(job.output == STREAM for job in found.jobs))
    check_quality(arguments.quality, found)
    for file, reason in found.problems:
        report.failed(file, f"{file}: {reason}")
    jobs = of_every_page(found.jobs) if arguments.all_pages else found.jobs
    jobs = with_sheets(jobs) if arguments.before_after else jobs
    inputs = identities([*(job.source for job in found.jobs), arguments.target])
    ready = to_do(jobs, inputs, arguments, report)
    for job, outcome in in_turn(ready, len(jobs), arguments) if arguments.ray is None else by_ray(ready, arguments):
        report.add(job, outcome)
    for file, reason in found.skipped:
        report.skipped(file, reason)
    return report.finish(many or len(jobs) > 1)


def to_do(
    jobs: Sequence[Job], inputs: set[tuple[int, int]], arguments: argparse.Namespace, report: Report
) -> Iterator[tuple[int, Job]]:
    """The jobs that can be done, each with its number from 1; the others are reported as they are come to."""
    for number, job in enumerate(jobs, 1):
        if arguments.skip_existing and os.path.lexists(job.output):
            report.skipped(job.source, f"{job.output} exists", counts=False)
            continue
        try:
            check_job(job, inputs, arguments.force)
        except ERRORS as error:
            report.add(job, failed(job, error))
        else:
            yield number, job


def in_turn(
    jobs: Iterable[tuple[int, Job]], count: int, arguments: argparse.Namespace
) -> Iterator[tuple[Job, Outcome]]:
    """Do numbered jobs one after the other in this process."""
    runner = JobRunner(job_options(arguments), partial(open_restorer, arguments))
    clock = time.monotonic()
    for number, job in jobs:
        with progress_bar(f"[{number}/{count}] {job.source.name}{remaining(clock, number, count)}") as show:
            outcome = runner.run(job, show)
        yield job, outcome


def by_ray(jobs: Iterable[tuple[int, Job]], arguments: argparse.Namespace) -> Iterator[tuple[Job, Outcome]]:
    """Do jobs by Ray: the files that can be done are found first, results come in any order."""
    ready = [job for _, job in jobs]
    if not ready:
        return
    from agents.restoration.on_ray import restore_on_ray

    options, restorer = replace(job_options(arguments), repeated=True), restorer_options(arguments)
    with progress_bar(f"{len(ready)} files") as show:
        show("starting Ray", 0.0)
        outcomes = restore_on_ray(
            ready, options, restorer, address=arguments.ray or None, workers=arguments.ray_workers
        )
        with closing(outcomes):
            for done, each in enumerate(outcomes, 1):
                yield each
                show(f"{done} done", done / len(ready))


def check_ray(arguments: argparse.Namespace, jobs: Sequence[Job]) -> None:
    """Raise an error if Ray is not installed or a run is not for it: one of standard streams or with a target."""
    if any(STREAM in (job.source, job.output) for job in jobs):
        raise ValueError("--ray is for files: standard input and output are on this machine only")
    if arguments.target is not None:
        raise ValueError("--target measures one FILE: leave --ray out")
    if arguments.device.startswith("cuda:"):
        raise ValueError(f"--ray gives each worker a GPU of its own: --device cuda, not {arguments.device}")
    if arguments.ray and Path(arguments.ray).exists():
        raise ValueError(f"--ray {arguments.ray}: is a file, no address of a cluster: put --ray at the end")
    from restore_env.extras import require_extra

    require_extra("ray", "--ray")


def job_options(arguments: argparse.Namespace) -> JobOptions:
    """The options that every job gets."""
    return JobOptions(
        **{field.name: getattr(arguments, field.name) for field in fields(JobOptions) if field.name != "repeated"}
    )


def remaining(start: float, number: int, count: int) -> str:
    """The time that is left before file ``number`` of ``count``, as words; empty at the first."""
    if number == 1:
        return ""
    seconds = (time.monotonic() - start) / (number - 1) * (count - number + 1)
    return f", {seconds / 60:.0f} min left" if seconds > 90 else f", {seconds:.0f} s left"


class Report:
    """Prints the results of a run: a line for each file as it goes, then the files that were left out, and the counts.

    Args:
        arguments: of the command.
        to_stderr: print on standard error, since standard output gets an image.
    """

    def __init__(self, arguments: argparse.Namespace, *, to_stderr: bool = False) -> None:
        self._as_objects, self._debug = bool(arguments.json), bool(arguments.debug)
        self._stream = sys.stderr if to_stderr else sys.stdout
        self._counts = {"restored": 0, "unchanged": 0, "skipped": 0, "failed": 0}
        self._left_out: list[str] = []
        self._complete = True

    def add(self, job: Job, outcome: Outcome) -> None:
        """Print what became of a file."""
        if outcome.error is not None:
            if self._debug:
                print(outcome.traceback, file=sys.stderr, end="")
            self.failed(job.source, outcome.error)
            return
        self._counts["restored" if outcome.row["toolchain"] else "unchanged"] += 1
        for note in outcome.row.get("warnings", ()):
            print_error(f"{job.source}: {note}", kind="warning")
        self._print(json.dumps(outcome.row) if self._as_objects else outcome.line)

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
