"""``imagerestore restore``: which photographs it takes, what it tells, where results go."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agents.restoration.restorer import quality
from restore_env.images.decoding import read_image
from tests.support.command_line import TOOLS, Shell, assert_one_line
from tests.support.image_files import encode, float_tiff, picture

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).resolve().parents[3]


# A single photograph --------------------------------------------------------------------------------------------------

GOOD: dict[str, tuple[str, Callable[[], bytes], tuple[int, int]]] = {
    "png": ("a.png", lambda: encode(picture()), (45, 30)),
    "one pixel": ("a.png", lambda: encode(picture(1, 1)), (1, 1)),
    "one row": ("a.png", lambda: encode(picture(1, 5000)), (5000, 1)),
    "one column": ("a.png", lambda: encode(picture(5000, 1)), (1, 5000)),
    "upper case": ("A.JPEG", lambda: encode(picture(), "JPEG"), (45, 30)),
    "float tiff": ("a.tif", lambda: float_tiff(0.25), (7, 6)),
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
    line = shell("restore", "a.png", "-o", "b.webp", "--target", "target.png", "--force", "--max-steps", "2")[1]
    before, after = result["psnr_before"], result["psnr_after"]
    gain = f"PSNR {before:.2f} -> {after:.2f} dB ({after - before:+.2f})"
    assert line == f"a.png -> b.webp: {', '.join(result['toolchain'])}; {gain}\n"


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
    elif kind == "symbolic":
        Path("b.png").symlink_to("a.png")
    else:
        os.link("a.png", "b.png")
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
