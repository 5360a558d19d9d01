from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms

from agents.cli import COMMANDS, main
from agents.commands.evaluate import MEASURED
from agents.network import RecurrentAgent, save_policy
from agents.restorer import quality
from restore_env.images import read_image
from restore_env.metrics import ssim
from restore_env.toolbox import bicubic_enlarge
from tests.toolkit import photographs
from tools_zoo.networks import NETWORKS, last_layer
from tools_zoo.toolboxes import ToolWeights, update_toolbox

pytestmark = pytest.mark.usefixtures("one_thread")

Pixels = npt.NDArray[np.uint8]
TOOLS = ("denoise_2", "denoise_3", "dejpeg_1")
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Shell:
    """Runs ``imagerestore`` in this process with a small random toolbox, and an agent that always takes a tool."""

    model: tuple[str, ...]
    folder: Path
    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str | Path, model: bool = True) -> tuple[int, str, str]:
        """Return exit code, standard output and standard error, each as the file descriptor saw it."""
        self.capture.readouterr()
        try:
            code = main([*map(str, arguments), *(self.model if model else ())])
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = self.capture.readouterr()
        return code, out, err

    def listing(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*"))


def write_model(folder: Path) -> tuple[str, ...]:
    """Write a toolbox and an agent, and return the arguments that choose them."""
    torch.manual_seed(0)
    weights = []
    for name in TOOLS:
        network = "eight_layer" if name == "denoise_3" else "three_layer"
        module = NETWORKS[network]()
        last_layer(module).weight.data.mul_(0.2)
        weights.append(ToolWeights(name, network, module.state_dict()))
    update_toolbox(folder / "tools", weights)
    agent = RecurrentAgent(TOOLS)
    agent.head.bias.data[-1] = -100  # never stop
    agent.head.bias.data[1] = -100  # nor the slow tool
    save_policy(agent, folder / "agent.safetensors")
    return "--toolbox", str(folder / "tools"), "--policy", str(folder / "agent.safetensors")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def shell(
    model: tuple[str, ...], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Shell:
    monkeypatch.chdir(tmp_path)
    return Shell(model, tmp_path, capfd)


def assert_one_line(err: str, *parts: str) -> None:
    assert err.count("\n") == 1, err
    assert err.startswith("imagerestore"), err
    assert ": error: " in err
    assert "Traceback" not in err
    for part in parts:
        assert part in err, err


def picture(height: int = 30, width: int = 45) -> Pixels:
    corners = np.random.default_rng(3).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(corners).resize((width, height), Image.Resampling.BICUBIC))


def encode(pixels: Pixels | Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def encode_deep(suffix: str, pixels: npt.NDArray[Any]) -> bytes:
    done, data = cv2.imencode(suffix, pixels)
    assert done
    return data.tobytes()


def bomb() -> bytes:
    """A small PNG that declares 100,000 x 100,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def float_tiff(value: float) -> bytes:
    pixels = np.full((6, 7, 3), 0.5, np.float32)
    pixels[2, 3, 1] = value
    return encode_deep(".tif", pixels)


# A single photograph --------------------------------------------------------------------------------------------------

GOOD: dict[str, tuple[str, Callable[[], bytes], tuple[int, int]]] = {
    "png": ("a.png", lambda: encode(picture()), (45, 30)),
    "one pixel": ("a.png", lambda: encode(picture(1, 1)), (1, 1)),
    "one row": ("a.png", lambda: encode(picture(1, 5000)), (5000, 1)),
    "one column": ("a.png", lambda: encode(picture(5000, 1)), (1, 5000)),
    "jpeg": ("a.jpg", lambda: encode(picture(), "JPEG"), (45, 30)),
    "upper case": ("A.JPEG", lambda: encode(picture(), "JPEG"), (45, 30)),
    "progressive": ("a.jpg", lambda: encode(picture(), "JPEG", progressive=True), (45, 30)),
    "grey jpeg": ("a.jpg", lambda: encode(picture()[..., 0], "JPEG"), (45, 30)),
    "cmyk": ("a.jpg", lambda: encode(Image.fromarray(picture()).convert("CMYK"), "JPEG"), (45, 30)),
    "palette": ("a.png", lambda: encode(Image.fromarray(picture()).convert("P")), (45, 30)),
    "bilevel": ("a.png", lambda: encode(Image.fromarray(picture()).convert("1")), (45, 30)),
    "alpha": ("a.png", lambda: encode(Image.fromarray(picture()).convert("RGBA")), (45, 30)),
    "16 bits": ("a.png", lambda: encode_deep(".png", picture().astype(np.uint16) * 257), (45, 30)),
    "16 bits grey": ("a.png", lambda: encode_deep(".png", picture()[..., 0].astype(np.uint16) * 257), (45, 30)),
    "float tiff": ("a.tif", lambda: float_tiff(0.25), (7, 6)),
    "webp": ("a.webp", lambda: encode(picture(), "WEBP"), (45, 30)),
    "bmp": ("a.bmp", lambda: encode(picture(), "BMP"), (45, 30)),
    "gif": ("a.gif", lambda: encode(picture(), "GIF", save_all=True, append_images=[Image.new("L", (9, 9))]), (45, 30)),
    "renamed": ("a.png", lambda: encode(picture(), "JPEG"), (45, 30)),
    "no suffix": ("photo", lambda: encode(picture()), (45, 30)),
    "spaces": ("my photo [bold].png", lambda: encode(picture()), (45, 30)),
    "two lines": ("two\nlines.png", lambda: encode(picture()), (45, 30)),
    "not text": (os.fsdecode(b"caf\xff.png"), lambda: encode(picture()), (45, 30)),
}


@pytest.mark.parametrize("kind", GOOD)
def test_a_photograph_is_restored(kind: str, shell: Shell) -> None:
    name, make, size = GOOD[kind]
    Path(name).write_bytes(make())
    code, out, err = shell("restore", name)
    assert (code, err) == (0, "")
    output = Path(name).with_name(f"{Path(name).stem}.restored.png")
    assert out.count("\n") == 1
    assert out.split(": ")[-1].strip().split(", ")[0] in TOOLS
    assert shell.listing() == sorted([name, str(output)])
    with Image.open(output) as restored:
        assert (restored.format, restored.mode, restored.size) == ("PNG", "RGB", size)
    assert not np.array_equal(read_image(output).pixels, read_image(name).pixels)


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


def test_results_as_json(shell: Shell) -> None:
    Path("a.png").write_bytes(encode(picture(100, 130)))
    Path("target.png").write_bytes(encode(picture(100, 130) // 2 + 60))
    code, out, err = shell("restore", "a.png", "-o", "b.webp", "--target", "target.png", "--json", "--max-steps", "2")
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert list(result) == [
        *("file", "output", "size", "scale", "toolchain", "votes", "gmacs", "seconds", "psnr_before", "psnr_after")
    ]
    assert (result["file"], result["output"], result["size"]) == ("a.png", "b.webp", [130, 100])
    assert result["scale"] == 1
    assert len(result["toolchain"]) == len(result["votes"]) == 2
    assert [vote["action"] for vote in result["votes"]] == result["toolchain"]
    assert all(sum(vote["counts"].values()) == 6 for vote in result["votes"])
    assert result["gmacs"] == pytest.approx(2 * 21_776 * 13_000 / 1e9)
    target = read_image("target.png").pixels
    assert result["psnr_before"] == quality(picture(100, 130), target)
    assert result["psnr_after"] == quality(read_image("b.webp").pixels, target)


def test_the_gain_on_one_line(shell: Shell) -> None:
    Path("a.png").write_bytes(encode(picture()))
    code, out, err = shell("restore", "a.png", "--target", "a.png", "--max-steps", "1")
    assert (code, err) == (0, "")
    after = quality(read_image("a.restored.png").pixels, picture())
    assert out.startswith("a.png -> a.restored.png: de")
    assert out.endswith(f"; PSNR 100.00 -> {after:.2f} dB ({after - 100:+.2f})\n")


def test_four_times_larger(shell: Shell) -> None:
    Path("a.png").write_bytes(encode(picture(9, 11)))
    Path("target.png").write_bytes(encode(picture(36, 44)))
    code, out, err = shell("restore", "a.png", "--scale", "4", "--json", "--target", "target.png")
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert (result["size"], result["scale"]) == ([44, 36], 4)
    assert len(result["votes"]) == 3
    assert result["toolchain"] == [*(vote["action"] for vote in result["votes"]), "sft_gan"]
    assert result["psnr_after"] > 5
    assert read_image("a.restored.png").pixels.shape == (36, 44, 3)


@pytest.mark.parametrize("name", ["sed", "bicubic_x4"])
def test_another_super_resolver(name: str, shell: Shell) -> None:
    Path("a.png").write_bytes(encode(picture(9, 11)))
    code, out, err = shell("restore", "a.png", "--scale", "4", "--super-resolver", name, "--max-steps", "1")
    assert (code, err) == (0, "")
    assert out.endswith(f", {name}\n")
    assert read_image("a.restored.png").pixels.shape == (36, 44, 3)
    code, out, err = shell("explain", "a.png", "--scale", "4", "--super-resolver", name, "--json")
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert (result["scale"], result["toolchain"][-1], len(result["steps"])) == (4, name, 3)


@pytest.mark.parametrize("output", ["b.png", "b.jpg", "b.JPEG", "b.webp", "b.tif", "b.tiff"])
def test_profile_and_exif_are_kept(output: str, shell: Shell) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Camera"
    exif[ExifTags.Base.Orientation] = 6
    Path("a.jpg").write_bytes(encode(picture(), "JPEG", icc_profile=profile, exif=exif))
    assert shell("restore", "a.jpg", "-o", output)[0] == 0
    with Image.open(output) as result:
        assert result.size == (30, 45)
        assert result.info["icc_profile"] == profile
        assert result.getexif()[ExifTags.Base.Make] == "Camera"
        assert ExifTags.Base.Orientation not in result.getexif()


# Where results go -----------------------------------------------------------------------------------------------------


def test_folders_keep_their_layout(shell: Shell) -> None:
    for name in ("in/a.png", "in/sub/b.jpg", "in/sub/deeper/a.webp", "c.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(encode(picture(5, 6), {".jpg": "JPEG", ".webp": "WEBP"}.get(Path(name).suffix, "PNG")))
    Path("in/notes.txt").write_text("no image")
    code, out, err = shell("restore", "in", "c.png", "-o", "out/new", "--json")
    assert (code, err) == (0, "")
    outputs = [*("out/new/a.png", "out/new/c.png", "out/new/sub/b.png", "out/new/sub/deeper/a.png")]
    assert sorted(str(path) for path in Path("out").rglob("*.*")) == outputs
    assert sorted(row["output"] for row in json.loads(out)) == outputs


def test_a_folder_gives_a_list_and_is_searched_without_earlier_results(shell: Shell) -> None:
    Path("in").mkdir()
    Path("in/a.png").write_bytes(encode(picture(5, 6)))
    for extra in ((), ("-o", "in/out")):
        for _ in range(2):
            code, out, err = shell("restore", "in", "--json", "--force", *extra)
            assert (code, err) == (0, "")
            assert [row["file"] for row in json.loads(out)] == ["in/a.png"]
    assert shell.listing() == ["in", "in/a.png", "in/a.restored.png", "in/out", "in/out/a.png"]


def test_one_file_into_a_folder(shell: Shell) -> None:
    Path("a.jpg").write_bytes(encode(picture(5, 6), "JPEG"))
    Path("there").mkdir()
    assert shell("restore", "a.jpg", "-o", "there")[0] == 0
    assert shell("restore", "a.jpg", "-o", "new/")[0] == 0
    assert shell.listing() == ["a.jpg", "new", "new/a.png", "there", "there/a.png"]


def test_the_others_are_done_all_the_same(shell: Shell) -> None:
    Path("in").mkdir()
    for name in ("in/a.png", "in/c.png"):
        Path(name).write_bytes(encode(picture(5, 6)))
    Path("in/b.png").write_bytes(b"broken")
    code, out, err = shell("restore", "missing.png", "in")
    assert code == 2
    assert [line.split(" -> ")[0] for line in out.splitlines()] == ["in/a.png", "in/c.png"]
    assert len(err.splitlines()) == 2
    assert "missing.png: no such file" in err
    assert "in/b.png" in err
    assert shell.listing() == [*("in", "in/a.png", "in/a.restored.png", "in/b.png", "in/c.png", "in/c.restored.png")]
    code, out, err = shell("restore", "in/b.png", "in/c.png", "--json", "--force")
    assert code == 2
    assert [row["file"] for row in json.loads(out)] == ["in/c.png"]
    assert_one_line(err, "in/b.png")


def test_what_exists_is_kept_unless_forced(shell: Shell) -> None:
    Path("a.png").write_bytes(encode(picture(5, 6)))
    Path("b.png").write_bytes(b"precious")
    code, out, err = shell("restore", "a.png", "-o", "b.png")
    assert (code, out) == (2, "")
    assert_one_line(err, "b.png: exists; --force overwrites it")
    assert Path("b.png").read_bytes() == b"precious"
    assert shell("restore", "a.png", "-o", "b.png", "--force")[0] == 0
    assert read_image("b.png").pixels.shape == (5, 6, 3)


def link(kind: str, name: str, to: str) -> None:
    if kind == "symbolic":
        Path(name).symlink_to(to)
    else:
        os.link(to, name)


@pytest.mark.parametrize("kind", ["same", "dotted", "symbolic", "hard", "other input", "target"])
def test_inputs_are_never_overwritten(kind: str, shell: Shell) -> None:
    Path("a.png").write_bytes(encode(picture(5, 6)))
    Path("c.png").write_bytes(encode(picture(6, 5)))
    Path("t.png").write_bytes(encode(picture(5, 6)))
    before = {path: path.read_bytes() for path in Path().iterdir()}
    arguments: list[str] = ["a.png", "-o", "b.png"]
    if kind == "same":
        arguments = ["a.png", "-o", "a.png"]
    elif kind == "dotted":
        Path("sub").mkdir()
        arguments = ["a.png", "-o", "sub/../a.png"]
    elif kind == "other input":
        Path("c.jpg").write_bytes(encode(picture(5, 6), "JPEG"))
        arguments = ["c.jpg", "sub", "-o", "."]
        Path("sub").mkdir()
        Path("c.png").replace("sub/e.png")
        Path("c.png").symlink_to("sub/e.png")
    elif kind == "target":
        arguments = ["a.png", "-o", "t.png", "--target", "t.png"]
    else:
        link(kind, "b.png", "a.png")
    code, _, err = shell("restore", *arguments, "--force")
    assert code == 2
    assert_one_line(err, "is an input of this run and is not overwritten")
    for path, data in before.items():
        assert path.read_bytes() == data


def test_two_inputs_for_one_output_are_an_error_before_any_work(shell: Shell) -> None:
    for name in ("a.png", "a.jpg", "x/b.png", "y/b.png"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(encode(picture(5, 6)))
    before = shell.listing()
    for arguments in (("a.png", "a.jpg"), ("x", "y", "-o", "out"), ("a.png", "a.png"), ("x", "x/b.png")):
        code, out, err = shell("restore", *arguments)
        assert (code, out) == (2, "")
        assert_one_line(err, "would both be written to")
    assert shell.listing() == before


MISTAKES: dict[str, tuple[Sequence[str], str]] = {
    "missing file": (["missing.png"], "missing.png: no such file"),
    "missing folder": (["missing/"], "missing: no such file"),
    "file in a file": (["a.png/b.png"], "a.png/b.png: no such file"),
    "name too long": (["x" * 300], "File name too long"),
    "folder without images": (["empty"], "empty: the folder holds no image files"),
    "unknown suffix": (["a.png", "-o", "b.xyz"], "cannot write .xyz"),
    "gif": (["a.png", "-o", "b.gif"], "cannot write .gif"),
    "no suffix": (["a.png", "-o", "b"], "cannot write a file without a suffix"),
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
    "super-resolver of nothing": (["a.png", "--super-resolver", "sed"], "say --scale 4, too"),
    "unknown super-resolver": (["a.png", "--scale", "4", "--super-resolver", "nope"], "nope: no super-resolver"),
    "tool for a super-resolver": (
        ["a.png", "--scale", "4", "--super-resolver", TOOLS[0]],
        "denoise_2 does not enlarge",
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


# Evaluation -----------------------------------------------------------------------------------------------------------


def write_pairs(folder: Path, count: int = 2, factor: int = 1) -> None:
    for name in ("lq", "gt"):
        (folder / name / "sub").mkdir(parents=True)
    for index, clean in enumerate(photographs(count, 60, 80)):
        degraded = clean[::factor, ::factor] // 2 + 50
        (folder / "gt" / "sub" / f"{index}_gt.png").write_bytes(encode(clean))
        (folder / "lq" / "sub" / f"{index}_in.png").write_bytes(encode(degraded))


@pytest.mark.parametrize("factor", [1, 4])
def test_evaluation_as_json(factor: int, shell: Shell) -> None:
    write_pairs(shell.folder, factor=factor)
    code, out, err = shell("evaluate", "--degraded", "lq", "--target", "gt", "--json", "--max-steps", "2")
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert list(result) == ["mean", "images"]
    assert list(result["mean"]) == list(MEASURED)
    assert [row["name"] for row in result["images"]] == ["sub/0_in.png", "sub/1_in.png"]
    for key in MEASURED:
        assert result["mean"][key] == pytest.approx(np.mean([row[key] for row in result["images"]]))
    for row in result["images"]:
        assert len(row["toolchain"]) == (2 if factor == 1 else 3)
        assert row["scale"] == factor
        clean = read_image(Path("gt") / row["name"].replace("_in", "_gt")).pixels
        arguments = ["restore", str(Path("lq") / row["name"]), "-o", "r.png", "--force", "--max-steps", "2"]
        assert shell(*arguments, "--scale", str(factor))[0] == 0
        restored = read_image("r.png").pixels
        assert row["psnr_after"] == quality(restored, clean)
        after, truth = (torch.from_numpy(p.transpose(2, 0, 1).copy())[None].float() / 255 for p in (restored, clean))
        assert row["ssim_after"] == pytest.approx(float(ssim(after, truth)), abs=1e-9)
        if factor == 4:
            small = read_image(Path("lq") / row["name"]).pixels.transpose(2, 0, 1).copy()
            before = bicubic_enlarge(torch.from_numpy(small)[None].float() / 255, 4).clamp(0, 1).mul(255).round()
            plain = before[0].permute(1, 2, 0).numpy().astype(np.uint8)
            assert row["psnr_before"] == quality(plain, clean)


def test_evaluation_as_a_table(shell: Shell) -> None:
    write_pairs(shell.folder, 3)
    code, out, err = shell("evaluate", "--degraded", "lq", "--target", "gt", "--max-steps", "1")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == [*("image", "PSNR", "after", "gain", "SSIM", "after", "seconds", "GMACs", "toolchain")]
    assert [line.split()[0] for line in lines[1:]] == ["sub/0_in.png", "sub/1_in.png", "sub/2_in.png", "mean"]
    assert all(line.split()[-1] in TOOLS for line in lines[1:4])


def test_evaluation_of_small_images_has_no_ssim(shell: Shell) -> None:
    for folder in ("lq", "gt"):
        Path(folder).mkdir()
        Path(folder, "a.png").write_bytes(encode(picture(10, 40)))
    arguments = ["evaluate", "--degraded", "lq", "--target", "gt"]
    code, out, err = shell(*arguments, "--json")
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert [result["images"][0][key] for key in ("ssim_before", "ssim_after")] == [None, None]
    assert [result["mean"][key] for key in ("ssim_before", "ssim_after")] == [None, None]
    assert result["images"][0]["psnr_before"] == pytest.approx(100)
    assert shell(*arguments)[0] == 0
    Path("lq/b.png").write_bytes(encode(picture(20, 40)))
    Path("gt/b.png").write_bytes(encode(picture(20, 40)))
    result = json.loads(shell(*arguments, "--json")[1])
    assert result["mean"]["ssim_before"] == pytest.approx(1)


EVALUATION_MISTAKES: dict[str, tuple[Sequence[str], str]] = {
    "no degraded": (["--degraded", "nope", "--target", "gt"], "nope: no such folder"),
    "no target": (["--degraded", "lq", "--target", "nope"], "nope: no such folder"),
    "no partner": (["--degraded", "lq", "--target", "lonely"], "no partner"),
    "no images": (["--degraded", "empty", "--target", "gt"], "empty: the folder holds no image files"),
    "sizes": (["--degraded", "lq", "--target", "odd"], "do not fit together"),
    "damaged": (["--degraded", "lq", "--target", "damaged"], "damaged/sub/1.png"),
    "toolbox": (["--degraded", "lq", "--target", "gt", "--toolbox", "nope"], "nope: no toolbox"),
    "scale": (["--degraded", "lq", "--target", "gt", "--scale", "4"], "its target is 1 times as large, not 4"),
}


@pytest.mark.parametrize("kind", EVALUATION_MISTAKES)
def test_a_mistake_in_evaluation_is_one_line(kind: str, shell: Shell) -> None:
    write_pairs(shell.folder)
    for folder in ("empty", "lonely/sub", "odd/sub", "damaged/sub"):
        Path(folder).mkdir(parents=True)
    Path("lonely/sub/0.png").write_bytes(encode(picture(60, 80)))
    for index in range(2):
        Path(f"odd/sub/{index}.png").write_bytes(encode(picture(61, 80)))
        Path(f"damaged/sub/{index}.png").write_bytes(encode(picture(60, 80))[: 9000 if index == 0 else 99])
    arguments, reason = EVALUATION_MISTAKES[kind]
    given = shell.model if "--toolbox" not in arguments else shell.model[2:]
    code, out, err = shell("evaluate", *arguments, *given, "--json", model=False)
    assert (code, out) == (2, "")
    assert_one_line(err, reason)


# In a process of its own ----------------------------------------------------------------------------------------------


def run_python(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


def test_the_real_command(model: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode(picture()))
    (tmp_path / "b.png").write_bytes(b"broken")
    done = run_python("-m", "agents.cli", "restore", "a.png", "b.png", "--json", *model, folder=tmp_path)
    assert done.returncode == 2
    assert [row["output"] for row in json.loads(done.stdout)] == ["a.restored.png"]
    assert_one_line(done.stderr, "b.png")


def test_the_command_line_starts_light_and_restores_without_the_training_libraries(
    model: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(encode(picture()))
    program = (
        "import sys\n"
        "from agents.cli import build_parser, main\n"
        "build_parser()\n"
        "assert not {'torch', 'numpy', 'PIL', 'gymnasium'} & sys.modules.keys()\n"
        f"assert main(['restore', 'a.png', '--max-steps', '1', *{model!r}]) == 0\n"
        "heavy = {'stable_baselines3', 'sb3_contrib', 'albumentations', 'skimage', 'matplotlib', 'tensorboard'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()\n"
    )
    done = run_python("-W", "error", "-c", program, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
