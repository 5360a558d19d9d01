"""``imagerestore restore``: which photographs it takes, what it tells, where results go."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from agents.restoration.restorer import Restoration, Restorer, quality
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
    assert (code, [line for line in err.splitlines() if "pages or frames" not in line]) == (0, [])
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
        *("file", "output", "size", "scale", "toolchain", "regions", "votes", "predicted_gain", "taken_back"),
        *("gmacs", "seconds", "psnr_before", "psnr_after"),
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
    Path("in/.hidden").write_text("no image")
    code, out, err = shell("restore", "in", "c.png", "-o", "out/new", "--json")
    assert code == 1
    skipped, summary = err.splitlines()
    assert skipped.startswith("imagerestore: skipped: in/notes.txt: ")
    assert summary == "imagerestore: 4 restored, 0 unchanged, 1 skipped, 0 failed"
    outputs = [*("out/new/a.png", "out/new/c.png", "out/new/sub/b.png", "out/new/sub/deeper/a.png")]
    assert sorted(str(path) for path in Path("out").rglob("*.*")) == outputs
    rows = [json.loads(line) for line in out.splitlines()]
    assert sorted(row["output"] for row in rows if "output" in row) == outputs
    assert [row["file"] for row in rows if "skipped" in row] == ["in/notes.txt"]


def test_a_folder_gives_a_list_and_is_searched_without_earlier_results(shell: Shell) -> None:
    Path("in").mkdir()
    Path("in/a.png").write_bytes(encode(picture(5, 6)))
    for extra in ((), ("-o", "in/out")):
        for _ in range(2):
            code, out, err = shell("restore", "in", "--json", "--force", *extra)
            assert (code, err) == (0, "imagerestore: 1 restored, 0 unchanged, 0 skipped, 0 failed\n")
            assert [json.loads(line)["file"] for line in out.splitlines()] == ["in/a.png"]
    assert shell.listing() == ["in", "in/a.png", "in/a.restored.png", "in/out", "in/out/a.png"]


def test_the_others_are_done_all_the_same(shell: Shell) -> None:
    Path("in").mkdir()
    for name in ("in/a.png", "in/c.png"):
        Path(name).write_bytes(encode(picture(5, 6)))
    Path("in/b.png").write_bytes(b"broken")
    code, out, err = shell("restore", "missing.png", "in")
    assert code == 1
    assert [line.split(" -> ")[0] for line in out.splitlines()] == ["in/a.png", "in/c.png"]
    assert err.splitlines()[2:] == ["imagerestore: 2 restored, 0 unchanged, 0 skipped, 2 failed"]
    assert "missing.png: no such file" in err
    assert "in/b.png" in err
    assert shell.listing() == [*("in", "in/a.png", "in/a.restored.png", "in/b.png", "in/c.png", "in/c.restored.png")]
    code, out, err = shell("restore", "in/b.png", "in/c.png", "--json", "--force")
    assert code == 1
    broken, good = (json.loads(line) for line in out.splitlines())
    assert (broken["file"], good["file"]) == ("in/b.png", "in/c.png")
    assert "in/b.png" in broken["error"]
    assert "in/b.png" in err


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
    assert code in (1, 2)
    assert "is an input of this run and is not overwritten" in err
    assert "Traceback" not in err
    for path, data in before.items():
        assert path.read_bytes() == data


def test_two_inputs_for_one_output_are_an_error_before_any_work(shell: Shell) -> None:
    for name in ("a.png", "x/b.png", "y/b.png"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(encode(picture(5, 6)))
    before = shell.listing()
    for arguments in (("x", "y", "-o", "out"), ("a.png", "a.png"), ("x", "x/b.png")):
        code, out, err = shell("restore", *arguments)
        assert (code, out) == (2, "")
        assert_one_line(err, "would both be written to")
    assert shell.listing() == before


def test_names_keep_their_suffix_where_they_would_clash(shell: Shell) -> None:
    Path("in").mkdir()
    for name, file_format in (("a.png", "PNG"), ("a.jpg", "JPEG"), ("b.png", "PNG")):
        Path("in", name).write_bytes(encode(picture(5, 6), file_format))
    assert shell("restore", "in", "-o", "out")[0] == 0
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.jpg.png", "a.png.png", "b.png"]
    assert shell("restore", "in/a.png", "in/a.jpg")[0] == 0
    assert {path.name for path in Path("in").glob("*.restored.*")} == {"a.jpg.restored.png", "a.png.restored.png"}
    assert shell("restore", "in", "-o", "same", "--format", "same")[0] == 0
    assert sorted(path.name for path in Path("same").iterdir()) == ["a.jpg", "a.png", "b.png"]


def test_skip_existing_resumes(shell: Shell) -> None:
    for name in ("a.png", "b.png"):
        Path(name).write_bytes(encode(picture(5, 6)))
    Path("a.restored.png").write_bytes(b"precious")
    code, _, err = shell("restore", "a.png", "b.png", "--skip-existing")
    assert code == 0
    assert err.splitlines()[0] == "imagerestore: skipped: a.png: a.restored.png exists"
    assert err.splitlines()[1] == "imagerestore: 1 restored, 0 unchanged, 1 skipped, 0 failed"
    assert Path("a.restored.png").read_bytes() == b"precious"


def test_a_file_that_was_made_meanwhile_is_kept(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.png").write_bytes(encode(picture(5, 6)))

    def restore_slowly(*arguments: Any, **options: Any) -> Restoration:
        Path("b.png").write_bytes(b"of another process")
        return restore(*arguments, **options)

    restore = Restorer.restore
    monkeypatch.setattr(Restorer, "restore", restore_slowly)
    code, out, err = shell("restore", "a.png", "-o", "b.png")
    assert (code, out) == (2, "")
    assert_one_line(err, "b.png: exists; --force overwrites it")
    assert shell.listing() == ["a.png", "b.png"]
    assert Path("b.png").read_bytes() == b"of another process"


def test_formats_and_quality(shell: Shell) -> None:
    Path("a.gif").write_bytes(encode(picture(), "GIF"))
    sizes = {}
    for kind, options in (("jpg", ["--quality", "20"]), ("webp", ["--quality", "20"]), ("tiff", []), ("same", [])):
        assert shell("restore", "a.gif", "--format", kind, "--force", *options)[0] == 0
        suffix = "png" if kind == "same" else kind
        sizes[kind] = Path(f"a.restored.{suffix}").stat().st_size
        with Image.open(f"a.restored.{suffix}") as image:
            assert image.size == (45, 30)
    assert sizes["jpg"] < sizes["same"]
    assert sizes["webp"] < sizes["same"]


def test_what_the_format_cannot_hold_is_told_and_metadata_can_be_left_out(shell: Shell) -> None:
    transparent = Image.fromarray(picture())
    transparent.putalpha(100)
    Path("a.png").write_bytes(encode(transparent, "PNG", dpi=(300, 300)))
    code, out, err = shell("restore", "a.png", "-o", "b.jpg", "--json")
    assert code == 0
    assert json.loads(out)["warnings"] == ["JPEG holds no transparency: white shows through"]
    assert err == "imagerestore: warning: a.png: JPEG holds no transparency: white shows through\n"
    assert shell("restore", "a.png", "-o", "c.png")[0] == shell("restore", "a.png", "-o", "d.png", "--strip")[0] == 0
    with Image.open("c.png") as kept, Image.open("d.png") as stripped:
        assert kept.getchannel("A").getextrema() == (100, 100)
        assert ("dpi" in kept.info, "dpi" in stripped.info) == (True, False)


def test_pages(shell: Shell) -> None:
    pages = [Image.fromarray(page) for page in (picture(5, 6), picture(6, 5), picture(7, 5))]
    Path("a.tif").write_bytes(encode(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    assert shell("restore", "a.tif", "--page", "2", "-o", "b.png")[::2] == (0, "")
    assert read_image("b.png").pixels.shape == (6, 5, 3)
    code, out, err = shell("restore", "a.tif", "--all-pages", "--json")
    assert (code, err) == (0, "imagerestore: 3 restored, 0 unchanged, 0 skipped, 0 failed\n")
    assert [json.loads(line)["page"] for line in out.splitlines()] == [1, 2, 3]
    assert read_image("a.3.restored.png").pixels.shape == (7, 5, 3)
    code, out, err = shell("restore", "a.tif", "--page", "4")
    assert (code, out) == (2, "")
    assert_one_line(err, "a.tif", "no page 4")


def test_a_file_that_is_cut_short(shell: Shell) -> None:
    Path("a.jpg").write_bytes(encode(picture(), "JPEG")[:-30])
    code, out, err = shell("restore", "a.jpg", "--strict")
    assert (code, out) == (2, "")
    assert_one_line(err, "a.jpg", "truncated")
    code, _, err = shell("restore", "a.jpg")
    assert (code, err.count("\n")) == (0, 1)
    assert err.startswith("imagerestore: warning: a.jpg: the file is cut short")


def test_no_strength_is_no_change(shell: Shell) -> None:
    Path("a.png").write_bytes(encode(picture()))
    assert shell("restore", "a.png", "--strength", "0")[0] == 0
    np.testing.assert_array_equal(read_image("a.restored.png").pixels, picture())


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
    assert done.returncode == 1
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row.get("output") for row in rows] == ["a.restored.png", None]
    assert "b.png" in done.stderr.splitlines()[0]
    assert len(done.stderr.splitlines()) == 2


def test_standard_streams(model: tuple[str, ...], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "agents.cli", "restore", "-", "--format", "jpg", *model]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, input=encode(picture()), capture_output=True, timeout=120
    )
    assert done.returncode == 0
    with Image.open(io.BytesIO(done.stdout)) as image:
        assert (image.format, image.size) == ("JPEG", (45, 30))
    assert done.stderr.startswith(b"- -> -: ")
    assert list(tmp_path.iterdir()) == [Path(model[1]).parent] or list(tmp_path.iterdir()) == []


def test_the_command_line_starts_light_and_restores_without_the_training_libraries(
    model: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(encode(picture()))
    program = (
        "import sys\n"
        "from agents.cli import build_parser, main\n"
        "build_parser()\n"
        "assert not {'torch', 'numpy', 'PIL', 'gymnasium'} & sys.modules.keys()\n"
        f"assert main(['restore', 'a.png', '--max-steps', '1', '--scale', '4', *{model!r}]) == 0\n"
        "heavy = {'stable_baselines3', 'sb3_contrib', 'albumentations', 'skimage', 'matplotlib', 'tensorboard'}\n"
        "heavy |= {'torch._dynamo'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()\n"
    )
    done = run_python("-W", "error", "-c", program, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
