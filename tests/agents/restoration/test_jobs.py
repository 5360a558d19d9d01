"""A job is one function, with and without Ray: what it writes, tells and does when it is repeated."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from agents.restoration.files import Job, with_sheets
from agents.restoration.jobs import JobOptions, JobRunner, Outcome
from agents.restoration.restorer import Restorer
from tests.support.command_line import Shell, assert_one_line
from tests.support.image_files import encode, picture

pytestmark = pytest.mark.usefixtures("one_thread")


def run(model: tuple[str, ...], job: Job, **options: Any) -> Outcome:
    names: dict[str, Any] = {model[0].strip("-"): model[1], model[2].strip("-"): model[3]}
    return JobRunner(JobOptions(**options), lambda: Restorer(**names)).run(job)


def test_an_outcome_is_plain_data(model: tuple[str, ...], tmp_path: Path) -> None:
    for name, data in (("a.png", encode(picture())), ("b.png", b"broken")):
        (tmp_path / name).write_bytes(data)
        outcome = run(model, Job(tmp_path / name, tmp_path / f"out.{name}"))
        assert Outcome(**json.loads(json.dumps(asdict(outcome)))) == outcome
        assert (outcome.error is None) == (tmp_path / f"out.{name}").exists() == ("Traceback" not in outcome.traceback)


def test_a_repeated_job_accepts_what_the_first_attempt_wrote_and_nothing_else(
    model: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(encode(picture()))
    (job,) = with_sheets([Job(tmp_path / "a.png", tmp_path / "b.png")])
    assert job.sheet is not None
    first = run(model, job, repeated=True)
    assert first.error is None
    job.sheet.unlink()  # as if the first attempt had ended before it
    again = run(model, job, repeated=True)
    assert again.row["toolchain"] == first.row["toolchain"]
    assert job.sheet.exists()
    assert run(model, job).error == f"{job.output}: exists; --force overwrites it"
    job.output.write_bytes(b"precious")
    assert run(model, job, repeated=True).error == f"{job.output}: exists; --force overwrites it"
    assert job.output.read_bytes() == b"precious"
    assert run(model, job, repeated=True, force=True).error is None


def test_a_restorer_that_cannot_be_made_ends_the_run(model: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode(picture()))
    with pytest.raises(ValueError, match="nope: no toolbox"):
        run(("--toolbox", "nope", *model[2:]), Job(tmp_path / "a.png", tmp_path / "b.png"))


REFUSED = {
    "standard output": (["a.png", "-o", "-", "--ray"], "standard input and output are on this machine only"),
    "standard input": (["-", "-o", "b.png", "--ray"], "standard input and output are on this machine only"),
    "target": (["a.png", "--target", "a.png", "--ray"], "--target measures one FILE: leave --ray out"),
    "a certain GPU": (["a.png", "--device", "cuda:1", "--ray"], "--device cuda, not cuda:1"),
    "a file as the address": (["a.png", "--ray", "a.png"], "is a file, no address of a cluster"),
    "workers of nothing": (["a.png", "--ray-workers", "2"], "--ray-workers is for --ray"),
    "no worker": (["a.png", "--ray", "--ray-workers", "0"], "--ray-workers"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_ray_is_not_for(kind: str, shell: Shell) -> None:
    Path("a.png").write_bytes(encode(picture()))
    arguments, reason = REFUSED[kind]
    code, out, err = shell("restore", *arguments)
    assert (code, out) == (2, "")
    assert_one_line(err, reason)
    assert shell.listing() == ["a.png"]
