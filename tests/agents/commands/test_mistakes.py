"""What the command line cannot do it says in one line: bad files, wrong arguments, damage; and its help."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from agents.agent import RecurrentAgent, save_policy
from agents.cli import COMMANDS
from tests.support.command_line import TOOLS, Shell, assert_one_line
from tests.support.image_files import encode, float_tiff, picture

pytestmark = pytest.mark.usefixtures("one_thread")


# Bad files ------------------------------------------------------------------------------------------------------------


BAD: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "truncated": ("a.png", lambda: encode(picture())[:200], "damaged"),
    "text": ("a.jpg", lambda: b"not an image\n", "not an image"),
    "nan": ("a.tif", lambda: float_tiff(float("nan")), "not finite"),
    "two lines": ("two\nlines.png", lambda: b"", "empty"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_one_line(kind: str, shell: Shell) -> None:
    name, make, reason = BAD[kind]
    Path(name).write_bytes(make())
    for form in ((), ("--json",)):
        code, out, err = shell("restore", name, *form)
        assert code == 2
        assert_one_line(err, " ".join(name.split()), reason)
        assert [json.loads(line)["file"] for line in out.splitlines()] == [name] * bool(form)
        assert shell.listing() == [name]


# Wrong arguments ------------------------------------------------------------------------------------------------------

MISTAKES: dict[str, tuple[Sequence[str], str]] = {
    "missing file": (["missing.png"], "missing.png: no such file"),
    "file in a file": (["a.png/b.png"], "a.png/b.png: no such file"),
    "name too long": (["x" * 300], "File name too long"),
    "folder without images": (["empty"], "empty: the folder holds no image files"),
    "gif": (["a.png", "-o", "b.gif"], "cannot write .gif"),
    "no suffix": (["a.png", "-o", "b"], "cannot write a file without a suffix; b.png is a file, b/ a folder"),
    "no such output folder": (["a.png", "-o", "no/b.png"], "no such folder"),
    "output folder is a file": (["a.png", "-o", "text.txt/"], "is not a folder that can be written to"),
    "output in a file": (["a.png", "-o", "text.txt/b.png"], "no such folder"),
    "output is a folder": (["a.png", "-o", "there"], "there/a.png: is a folder"),
    "unwritable": (["a.png", "-o", "/proc/b.png"], "/proc"),
    "file for a folder": (["full", "-o", "b.png"], "several images need a folder"),
    "existing file for several": (["a.png", "c.png", "-o", "text.txt"], "several images need a folder"),
    "unknown toolbox": (["a.png", "--toolbox", "nope"], "nope: no toolbox"),
    "unknown policy": (["a.png", "--policy", "nope"], "nope: no policy"),
    "policy is no policy": (["a.png", "--policy", "text.txt"], "text.txt: not a readable safetensors file"),
    "policy is a tool": (["a.png", "--policy", "TOOLS/dejpeg_1.safetensors"], "not a policy"),
    "policy of other tools": (["a.png", "--policy", "other.safetensors"], "the policy was trained with the tools a, b"),
    "device": (["a.png", "--device", "cuda:7"], "device 'cuda:7' cannot be used"),
    "unknown device": (["a.png", "--device", "quantum"], "device 'quantum' cannot be used"),
    "steps": (["a.png", "--max-steps", "0"], "--max-steps"),
    "scale": (["a.png", "--scale", "3"], "--scale"),
    "scale in words": (["a.png", "--scale", "big\nger"], "--scale"),
    "super-resolver of nothing": (["a.png", "--super-resolver", "sed"], "needs --scale 2 or 4"),
    "unknown super-resolver": (["a.png", "--scale", "4", "--super-resolver", "nope"], "nope: no super-resolver"),
    "tool for a super-resolver": (
        ["a.png", "--scale", "4", "--super-resolver", TOOLS[0]],
        "denoise_2 does not upscale",
    ),
    "unknown option": (["a.png", "--frobnicate"], "--frobnicate"),
    "no file": ([], "FILE"),
    "missing target": (["a.png", "--target", "missing.png"], "missing.png: no such file"),
    "target of another size": (["a.png", "--target", "c.png"], "a.png: the target is 5x6, the result will be 6x5"),
    "target for several": (["a.png", "c.png", "--target", "a.png"], "--target goes with one FILE"),
    "larger target without scale": (["a.png", "--target", "large.png"], "they must be of one size"),
    "strength": (["a.png", "--strength", "1.5"], "--strength must lie in 0 to 1, got 1.5"),
    "quality": (["a.png", "--quality", "101", "--format", "jpg"], "--quality must lie in 1 to 100"),
    "quality of a png": (["a.png", "--quality", "50"], "--quality is for results that are JPEG or WebP"),
    "format of a named file": (["a.png", "-o", "b.png", "--format", "jpg"], "its suffix says the format"),
    "unknown format": (["a.png", "--format", "bmp"], "--format"),
    "several to standard output": (["a.png", "c.png", "-o", "-"], "they need a folder to go to"),
    "several with standard input": (["a.png", "-"], "they need a folder to go to"),
    "force and skip": (["a.png", "--force", "--skip-existing"], "not allowed with"),
    "unknown tool": (["a.png", "--tools", f"{TOOLS[0]},conjure"], f"no tool 'conjure': choose from {', '.join(TOOLS)}"),
    "no tool": (["a.png", "--tools", "denoise_2,"], "'denoise_2,' is not a list of tools"),
    "super-resolver at the same size": (["a.png", "--tools", "sed"], "sed is a super-resolver: it needs a scale of 2"),
    "tools and regions": (["a.png", "--tools", TOOLS[0], "--regions"], "--regions needs an agent that chooses"),
    "regions and scale": (["a.png", "--regions", "--scale", "4"], "regions work at scale 1"),
    "tools and policy": (["a.png", "--tools", "denoise_2", "--policy", "default"], "not allowed with argument"),
    "sheet of a stream": (["a.png", "-o", "-", "--before-after"], "--before-after needs a result that is a file"),
    "null byte": (["a\0b.png"], "no such file"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_is_one_line(kind: str, shell: Shell) -> None:
    Path("a.png").write_bytes(encode(picture(5, 6)))
    Path("c.png").write_bytes(encode(picture(6, 5)))
    Path("large.png").write_bytes(encode(picture(20, 24)))
    Path("text.txt").write_text("text")
    for folder in ("empty", "there/a.png", "full"):
        Path(folder).mkdir(parents=True)
    Path("full/a.png").write_bytes(encode(picture(5, 6)))
    save_policy(RecurrentAgent(("a", "b")), "other.safetensors")
    before = shell.listing()
    arguments, reason = MISTAKES[kind]
    arguments = [argument.replace("TOOLS", shell.model[1]) for argument in arguments]
    given = [*shell.model[:2]] if "--toolbox" not in arguments else []
    given += [*shell.model[2:]] if not {"--policy", "--tools"} & {*arguments} else []
    code, out, err = shell("restore", *arguments, *given, model=False)
    assert (code, out) == (2, "")
    assert_one_line(err, reason)
    assert shell.listing() == before


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--backend", "tpu"], "unknown backend 'tpu': choose from torch, eager, ncnn"),
    ],
)
def test_wrong_settings_of_a_training_are_one_line(arguments: list[str], reason: str, shell: Shell) -> None:
    before = shell.listing()
    code, out, err = shell("train", "agent", "--out", "agent", *arguments, model=False)
    assert (code, out) == (2, "")
    assert_one_line(err, reason)
    assert shell.listing() == before


@pytest.mark.parametrize("arguments", [[], ["conjure"], ["restore", "--json="], ["evaluate"], ["evaluate", "x"]])
def test_a_wrong_command_line_is_one_line(arguments: list[str], shell: Shell) -> None:
    code, out, err = shell(*arguments, model=False)
    assert (code, out) == (2, "")
    assert_one_line(err, "--help")


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help(command: str, shell: Shell) -> None:
    code, out, err = shell(*filter(None, [command.replace("_", "-")]), "--help", model=False)
    assert (code, err) == (0, "")
    assert out.startswith("usage: imagerestore")
