"""What the command line cannot do it says in one line: bad files, wrong arguments, damage; and its help."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.agent import RecurrentAgent, save_policy
from agents.cli import COMMANDS
from restore_env.images.decoding import read_image
from tests.support.command_line import TOOLS, Shell, assert_one_line
from tests.support.image_files import encode, float_tiff, picture

pytestmark = pytest.mark.usefixtures("one_thread")


# Bad files ------------------------------------------------------------------------------------------------------------


def bomb() -> bytes:
    """A small PNG that declares 100,000 x 100,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


BAD: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "truncated png": ("a.png", lambda: encode(picture())[:200], "damaged"),
    "truncated jpeg": ("a.jpg", lambda: encode(picture(), "JPEG")[:500], "damaged"),
    "text": ("a.jpg", lambda: b"not an image\n", "not an image"),
    "a zip": ("a.png", lambda: b"PK\x03\x04" + bytes(99), "not an image"),
    "empty": ("a.png", lambda: b"", "empty"),
    "huge header": ("a.png", bomb, "refused"),
    "nan": ("a.tif", lambda: float_tiff(float("nan")), "not finite"),
    "infinity": ("a.tif", lambda: float_tiff(float("inf")), "not finite"),
    "high dynamic range": ("a.tif", lambda: float_tiff(7.5), "must lie in [0, 1]"),
    "two lines": ("two\nlines.png", lambda: b"", "empty"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_one_line(kind: str, shell: Shell) -> None:
    name, make, reason = BAD[kind]
    Path(name).write_bytes(make())
    for form in ((), ("--json",)):
        code, out, err = shell("restore", name, *form)
        assert (code, out) == (2, "")
        assert_one_line(err, " ".join(name.split()), reason)
        assert shell.listing() == [name]


# Wrong arguments ------------------------------------------------------------------------------------------------------

MISTAKES: dict[str, tuple[Sequence[str], str]] = {
    "missing file": (["missing.png"], "missing.png: no such file"),
    "missing folder": (["missing/"], "missing: no such file"),
    "file in a file": (["a.png/b.png"], "a.png/b.png: no such file"),
    "name too long": (["x" * 300], "File name too long"),
    "folder without images": (["empty"], "empty: the folder holds no image files"),
    "unknown suffix": (["a.png", "-o", "b.xyz"], "cannot write .xyz"),
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
    "toolbox is a file": (["a.png", "--toolbox", "text.txt"], "text.txt: no toolbox"),
    "unknown policy": (["a.png", "--policy", "nope"], "nope: no policy"),
    "policy is no policy": (["a.png", "--policy", "text.txt"], "text.txt: not a readable safetensors file"),
    "policy is a tool": (["a.png", "--policy", "TOOLS/dejpeg_1.safetensors"], "not a policy"),
    "policy of other tools": (["a.png", "--policy", "other.safetensors"], "the policy was trained with the tools a, b"),
    "device": (["a.png", "--device", "cuda:7"], "device 'cuda:7' cannot be used"),
    "unknown device": (["a.png", "--device", "quantum"], "device 'quantum' cannot be used"),
    "steps": (["a.png", "--max-steps", "0"], "--max-steps"),
    "steps in words": (["a.png", "--max-steps", "three"], "--max-steps"),
    "negative steps": (["a.png", "--max-steps", "-1"], "--max-steps"),
    "scale": (["a.png", "--scale", "3"], "--scale"),
    "scale in words": (["a.png", "--scale", "big\nger"], "--scale"),
    "super-resolver of nothing": (["a.png", "--super-resolver", "sed"], "needs --scale 4"),
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
    given += [*shell.model[2:]] if "--policy" not in arguments else []
    code, out, err = shell("restore", *arguments, *given, model=False)
    assert (code, out) == (2, "")
    assert_one_line(err, reason)
    assert shell.listing() == before


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--backend", "tpu"], "unknown backend 'tpu': choose from torch, eager, ncnn"),
        (["--distortion-share", "0.2"], "the share of the distortion that --distortion names"),
        (["--distortion", "restore_env.distortions.camera:camera"], "add --warm-start MINUTES"),
        (["--distortion", "nowhere:rain", "--warm-start", "1"], "distortion 'nowhere:rain' cannot be imported"),
        (["--distortion", "numpy:pi", "--warm-start", "1"], "expected an albumentations.Compose"),
        (
            ["--distortion", "restore_env.distortions.camera:camera", "--single-share", "0.8", "--warm-start", "1"],
            "must not exceed 1 together, got 1.1",
        ),
    ],
)
def test_lessons_that_cannot_be_given_are_one_line(arguments: list[str], reason: str, shell: Shell) -> None:
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


# Damage ---------------------------------------------------------------------------------------------------------------

SEEDS = {
    "png": encode(picture(12, 17)),
    "jpg": encode(picture(12, 17), "JPEG"),
    "tif": encode(picture(12, 17), "TIFF", compression="tiff_adobe_deflate"),
    "webp": encode(picture(12, 17), "WEBP"),
}


@pytest.mark.parametrize("kind", SEEDS)
@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_spoilt_file_is_restored_or_refused_in_one_line(kind: str, shell: Shell, data: st.DataObject) -> None:
    spoilt = bytearray(SEEDS[kind])
    for _ in range(data.draw(st.integers(1, 4), "changes")):
        position = data.draw(st.integers(0, len(spoilt) - 1), "position")
        spoilt[position] = data.draw(st.integers(0, 255), "byte")
    if data.draw(st.booleans(), "cut"):
        del spoilt[data.draw(st.integers(1, len(spoilt)), "length") :]
    source, output = Path(f"a.{kind}"), Path("b.png")
    source.write_bytes(spoilt)
    output.unlink(missing_ok=True)
    code, out, err = shell("restore", source, "-o", output, "--max-steps", "1")
    if code == 0:
        assert (out.count("\n"), err) == (1, "")
        assert read_image(output).pixels.shape == read_image(source).pixels.shape
    else:
        assert (code, out) == (2, "")
        assert_one_line(err, source.name)
    assert shell.listing() == sorted([source.name, *([output.name] if code == 0 else [])])
