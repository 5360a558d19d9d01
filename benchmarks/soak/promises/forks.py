"""Commands in forks of a process that has imported everything, so that one costs no start of Python and PyTorch.

``python -m benchmarks.soak.promises.forks`` is that process: :class:`Forks` talks to it in lines of JSON. A fork
becomes the command and ends as any process does, but for the teardown of modules, when nothing of a command is left.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from agents.signals import SIGNALS, stop_at_once

MODULES = (
    *(
        "matplotlib.pyplot",
        "tensorboard.summary.writer.record_writer",
        "tensorboard.compat.proto.event_pb2",
        "rich.live",
    ),
    *("agents.commands.train", "agents.commands.levels", "agents.commands.restore", "agents.restoration.restorer"),
    *("agents.training.agent", "agents.training.refresh", "agents.imitation.imitation", "restore_env.levels.building"),
    *("sr_models.training.prior", "sr_models.training.super_resolution", "agents.restoration.before_after"),
    *("torch._dynamo", "PIL.AvifImagePlugin", "PIL.PngImagePlugin"),  # an optimizer and a figure import these
    *("tools_zoo.training.display", "restore_env.images.encoding", "restore_env.levels.optima"),
)
SHORTER: Mapping[str, Any] = MappingProxyType(
    {
        "tools_zoo.training.trainer:CHECKPOINT_SECONDS": -1.0,
        "agents.training.run:CHECKPOINT_SECONDS": -1.0,
        "agents.training.run:VALIDATIONS": 3,
        "agents.training.run:VALIDATION_EPISODES": 4,
        "tools_zoo.training.tools:VALIDATION_PATCHES": 4,
        "tools_zoo.training.joint:VALIDATION_PATCHES": 4,
        "sr_models.training.super_resolution:VALIDATION_SIZE": 32,
        "sr_models.training.crops:CROPS": 2,
    }
)
"""Constants that make trainings small, and let them write a checkpoint at every step."""
PATIENCE = 120.0
"""Seconds after which a command that has not ended has hung."""


@dataclass(frozen=True)
class Ended:
    """What became of a command."""

    code: int
    """Its exit code; minus the number of the signal that ended it."""
    out: str
    err: str
    seconds: float

    @property
    def messages(self) -> list[str]:
        """The lines on standard error, but for progress and the counts at the end."""
        return [line for line in self.err.splitlines() if "restored, " not in line and not line.startswith("levels: ")]


@dataclass(frozen=True)
class Running:
    """A command that has been started."""

    process: int
    out: Path
    err: Path
    began: float

    def send(self, number: int) -> bool:
        """Send a signal, which also a process that has ended can get, since it waits to be reaped.

        Returns:
            Whether it had ended.
        """
        ended = Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        os.kill(self.process, number)
        return ended


class Forks:
    """Starts commands of ``imagerestore`` in forks.

    Args:
        scratch: folder for what commands print.
    """

    def __init__(self, scratch: Path) -> None:
        self._scratch, self._count = scratch, 0
        scratch.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, "-m", __spec__.name]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        environment["TORCHINDUCTOR_CACHE_DIR"] = str(scratch / "torch")  # PyTorch keeps it
        self._server = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=Path.cwd()
        )
        weakref.finalize(self, self._server.communicate)

    def start(self, words: Sequence[str], folder: Path, *, memory: int | None = None) -> Running:
        """Start a command.

        Args:
            words: of the command line.
            folder: the working folder; temporary files go to ``tmp`` in it.
            memory: bytes of address space that it may have beyond what it begins with.
        """
        (folder / "tmp").mkdir(exist_ok=True)
        self._count += 1
        out, err = (self._scratch / f"{self._count}.{name}" for name in ("out", "err"))
        request = {"words": list(words), "folder": str(folder), "out": str(out), "err": str(err), "memory": memory}
        return Running(int(self._ask(request)), out, err, time.monotonic())

    def wait(self, running: Running) -> Ended:
        """Wait for the end of a command; one that has hung is killed, and its code is then 1000."""
        code = int(self._ask({"wait": running.process}))
        seconds = time.monotonic() - running.began
        out, err = (path.read_text("utf-8", "replace") for path in (running.out, running.err))
        running.out.unlink()
        running.err.unlink()
        return Ended(code, out, err, seconds)

    def run(self, words: Sequence[str], folder: Path, **options: Any) -> Ended:
        """Start a command and wait for its end."""
        return self.wait(self.start(words, folder, **options))

    def _ask(self, request: Mapping[str, Any]) -> Any:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())


def _serve() -> dict[str, Any] | None:
    """Answer requests; a fork returns the request that it has to become, the server None at the end."""
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        if "words" in request:
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until the fork is the command
            process = os.fork()
            if not process:
                return dict(request)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            print(process, flush=True)
        else:
            print(_reaped(request["wait"]), flush=True)
    return None


def _reaped(process: int) -> int:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return 1000


def _become(request: Mapping[str, Any]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.chdir(request["folder"])
    os.environ["TMPDIR"] = tempfile.tempdir = str(Path(request["folder"]) / "tmp")
    for number, name, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, request["out"], os.O_WRONLY | os.O_CREAT),
        (2, request["err"], os.O_WRONLY | os.O_CREAT),
    ):
        descriptor = os.open(name, flags, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    if request["memory"] is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + request["memory"]
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    sys.argv[1:] = request["words"]
    stop_at_once("imagerestore")
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _end(code: int) -> None:
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    from PIL import Image

    from agents.cli import main

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal of the soak
    for name in MODULES:
        importlib.import_module(name)
    Image.init()
    gc.freeze()  # no collection copies what forks share
    for place, value in SHORTER.items():
        module, _, attribute = place.partition(":")
        setattr(importlib.import_module(module), attribute, value)
    asked = _serve()
    if asked is not None:
        _become(asked)
        _end(main())
