"""What every command shares: version, traceback on request, exit codes."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from agents.cli import main
from agents.command_line import run_guarded
from agents.signals import Terminated, stoppable


def fail(error: BaseException) -> int:
    raise error


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["--version"])
    assert leaving.value.code == 0
    assert capsys.readouterr().out == f"imagerestore {version('imagerestore')}\n"


def test_debug_shows_the_traceback_before_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--debug", "evaluate", "--distorted", "none", "--target", "none"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("Traceback")
    assert error.endswith("imagerestore: error: none: no such folder\n")


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ValueError("a\nb"), 2, "imagerestore: error: a b\n"),
        (RuntimeError("odd"), 2, "imagerestore: error: odd; imagerestore --debug COMMAND shows the traceback\n"),
        (MemoryError(), 2, "imagerestore: error: there is not enough memory\n"),
        (
            OSError(28, "No space left", "out/checkpoint.pt"),
            2,
            "imagerestore: error: out/checkpoint.pt: No space left\n",
        ),
        (Terminated(), 143, "imagerestore: terminated; what is written is whole\n"),
        (KeyboardInterrupt(), 130, "imagerestore: interrupted; what is written is whole\n"),
    ],
)
def test_errors_are_one_line(error: BaseException, code: int, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_guarded(lambda: fail(error), "imagerestore") == code
    assert capsys.readouterr().err == text


ORDER = """
import sys
import time
from importlib.abc import MetaPathFinder
from agents.cli import main

class Finder(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name in ("numpy", "torch"):
            print(name, file=sys.stderr)

sys.meta_path.insert(0, Finder())
main(sys.argv[1:])
"""


@pytest.mark.parametrize("words", [("train", "tools", "--help"), ("levels", "show", "missing")])
def test_numpy_is_imported_before_pytorch_which_would_swallow_an_interruption(words: tuple[str, ...]) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", ORDER, *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[:2] == ["numpy", "torch"]


STOPPED = """
import os, signal, sys
from importlib.abc import MetaPathFinder
from agents.cli import main

class Finder(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == module:
            os.kill(os.getpid(), int(number))

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may ignore it
module, number, *sys.argv[1:] = sys.argv[1:]
sys.meta_path.insert(0, Finder())
sys.exit(main())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("agents.command_line", ("restore", "a.png")),
        ("numpy", ("train", "tools", "--help")),
        ("restore_env.levels.store", ("levels", "show", "missing")),
    ],
)
def test_a_signal_while_modules_are_imported_is_one_line(module: str, words: tuple[str, ...], number: int) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", STOPPED, module, str(int(number)), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    what = "interrupted" if number == signal.SIGINT else "terminated"
    assert (done.returncode, done.stderr) == (128 + number, f"imagerestore: {what}; what is written is whole\n")


def test_a_signal_waits_for_the_end_of_an_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    program = "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\nwhole = True\n"
    (tmp_path / "being_imported.py").write_text(program)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("agents.signals.AGAIN", 0.01)

    def use() -> None:
        with stoppable():
            assert importlib.import_module("being_imported").whole
            time.sleep(10)

    try:
        with pytest.raises(Terminated):
            use()
        assert sys.modules.pop("being_imported").whole
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        monkeypatch.setattr("agents.signals.LONGEST", 0.0)
        with pytest.raises(Terminated):
            use()
        assert "being_imported" not in sys.modules
    finally:
        signal.signal(signal.SIGTERM, before)
