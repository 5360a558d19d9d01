"""``imagerestore restore --ray``: the same as without, also when workers die, in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.scaling import processor_times
from tests.support.image_files import encode, picture

pytest.importorskip("ray.data", exc_type=ImportError)
pytestmark = pytest.mark.filterwarnings("default")
ROOT = Path(__file__).resolve().parents[3]
RAY = ("--ray", "--ray-workers", "2")
DEADLY = 61
"""Height of a photograph that ends the process that restores it."""
PLUGIN = f"""
import os
from restore_env.toolbox import FunctionTool, Toolbox

def apply(images):
    if images.shape[-2] >= {DEADLY}:
        os._exit(1)
    return images * 0.5

def toolbox():
    return Toolbox([FunctionTool("halve", apply)])
"""


def photographs(folder: Path, count: int, height: int = 30) -> list[str]:
    folder.mkdir()
    names = [f"{number:02}.png" for number in range(count)]
    for number, name in enumerate(names):
        (folder / name).write_bytes(encode(picture(height, 40 + number)))
    return names


@contextmanager
def started(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """``imagerestore restore``, in a process group of its own as a shell starts it."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{folder}", "OMP_NUM_THREADS": "1"}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-m", "agents.cli", "restore", *arguments]
    with subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **pipes) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def run(folder: Path, *arguments: str) -> tuple[int, list[str], list[str]]:
    """Exit code, and the lines of standard output and standard error, sorted: Ray's come in any order."""
    with started(folder, *arguments) as process:
        out, err = process.communicate(timeout=300)
    return process.returncode, sorted(out.splitlines()), sorted(err.splitlines())


def rows(lines: list[str]) -> list[dict[str, Any]]:
    """Rows of ``--json`` without what differs from run to run."""
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """The process numbers of a command's workers, which Ray has named after their class."""
    return [number for number, (title, _) in processor_times(process.pid).items() if "RayWorker" in title]


def test_the_same_bytes_rows_and_exit_code_as_without(model: tuple[str, ...], tmp_path: Path) -> None:
    photographs(tmp_path / "in", 5)
    (tmp_path / "in" / "02.png").write_bytes(b"broken")
    (tmp_path / "in" / "notes.txt").write_text("no image")
    (tmp_path / "in" / os.fsdecode(b"caf\xff.png")).write_bytes(encode(picture(20, 20)))
    found = []
    for out, ray in (("one", ()), ("two", RAY)):
        (tmp_path / out).mkdir()
        (tmp_path / out / "03.png").write_bytes(b"precious")
        arguments = ("missing", "in", "-o", out, "--json", "--before-after", *model)
        code, lines, errors = run(tmp_path, *arguments, *ray)
        assert code == 1
        text = "\n".join(lines).replace(f'"{out}/', '"out/').replace(f"{out}/03", "out/03")
        found.append((rows(text.splitlines()), [line.replace(f"{out}/", "out/") for line in errors]))
    assert found[0] == found[1]
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert len(contents(tmp_path / "one")) == 4 * 2 + 1


def test_a_killed_worker_loses_nothing_and_a_later_run_goes_on(model: tuple[str, ...], tmp_path: Path) -> None:
    names = photographs(tmp_path / "in", 40)
    assert run(tmp_path, "in", "-o", "one", *model)[0] == 0
    (tmp_path / "two").mkdir()
    for name in names[::13]:
        (tmp_path / "two" / name).write_bytes((tmp_path / "one" / name).read_bytes())
    with started(tmp_path, "in", "-o", "two", "--skip-existing", "--json", *model, *RAY) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = [process.stdout.readline() for _ in range(len(names[::13]) + 1)]
        os.kill(workers_of(process)[0], signal.SIGKILL)
        out, err = (stream.read() for stream in (process.stdout, process.stderr))
    assert err.splitlines()[4:] == ["imagerestore: 36 restored, 0 unchanged, 4 skipped, 0 failed"]
    assert process.returncode == 0
    assert out.count("\n") > 10  # so it was killed in the middle
    told = [json.loads(line) for line in [*first, *out.splitlines()]]
    assert sorted(row["file"] for row in told) == [f"in/{name}" for name in names]
    assert {name: data for name, data in contents(tmp_path / "two").items() if name[0] != "."} == contents(
        tmp_path / "one"
    )


def test_what_kills_every_worker_fails_alone(tmp_path: Path) -> None:
    photographs(tmp_path / "in", 4)
    (tmp_path / "in" / "deadly.png").write_bytes(encode(picture(DEADLY, 40)))
    (tmp_path / "plugin.py").write_text(PLUGIN)
    toolbox = ("--toolbox", "plugin:toolbox", "--tools", "halve")
    code, out, err = run(tmp_path, "in", "-o", "out", *toolbox, *RAY)
    assert code == 1
    assert err == [
        "imagerestore: 4 restored, 0 unchanged, 0 skipped, 1 failed",
        "imagerestore: error: in/deadly.png: 3 workers that restored it died",
    ]
    assert len(out) == len(contents(tmp_path / "out")) == 4


def test_a_restorer_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    photographs(tmp_path / "in", 2)
    code, out, err = run(tmp_path, "in", "-o", "out", "--toolbox", "nope", *RAY)
    assert (code, out, len(err)) == (2, [], 1)
    assert err[0].startswith("imagerestore: error: nope: no toolbox")


def test_an_interruption_is_one_line_and_what_is_written_is_whole(model: tuple[str, ...], tmp_path: Path) -> None:
    photographs(tmp_path / "in", 40)
    with started(tmp_path, "in", "-o", "out", *model, *RAY) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (130, "imagerestore: interrupted; what is written is whole\n")
    whole = [path for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")]
    assert whole
    assert all(path.read_bytes().endswith(b"IEND\xaeB`\x82") for path in whole)
    deadline = time.monotonic() + 20
    while workers_of(process) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert workers_of(process) == []
