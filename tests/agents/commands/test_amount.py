"""``imagerestore restore``: chains by hand, sheets of before and after, scale 2, and what starts without PyTorch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restore_env.images.decoding import read_image
from tests.agents.commands.test_restore import run_python
from tests.support.command_line import Shell, assert_one_line
from tests.support.image_files import encode, picture

pytestmark = pytest.mark.usefixtures("one_thread")


def test_tools_by_name(shell: Shell) -> None:
    Path("a.png").write_bytes(encode(picture(9, 11)))
    tools = ("--toolbox", shell.model[1], "--tools")
    code, out, err = shell("restore", "a.png", *tools, "dejpeg_1, denoise_2,denoise_2,dejpeg_1", "--json", model=False)
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert result["toolchain"] == ["dejpeg_1", "denoise_2", "denoise_2", "dejpeg_1"]
    assert (result["votes"], result["predicted_gain"]) == ([], None)
    large = ("--force", "--scale", "4")
    for chain, done in (("denoise_2,bicubic_x4,dejpeg_1",) * 2, ("denoise_2", "denoise_2,sft_gan")):
        code, out, err = shell("restore", "a.png", *tools, chain, *large, model=False)
        assert (code, err) == (0, "")
        assert out.endswith(f": {done.replace(',', ', ')}\n")
        assert read_image("a.restored.png").pixels.shape == (36, 44, 3)


def test_scale_2(shell: Shell) -> None:
    Path("a.png").write_bytes(encode(picture(9, 11)))
    code, out, err = shell("restore", "a.png", "--scale", "2", "--super-resolver", "bicubic_x4", "--json")
    assert (code, err) == (0, "")
    assert (json.loads(out)["size"], json.loads(out)["toolchain"][-1]) == ([22, 18], "bicubic_x4")
    assert read_image("a.restored.png").pixels.shape == (18, 22, 3)


def test_a_sheet_beside_each_result(shell: Shell) -> None:
    for name in ("in/a.png", "in/sub/a.jpg"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(encode(picture(50, 60), "JPEG" if name.endswith("jpg") else "PNG"))
    code, out, _ = shell("restore", "in", "-o", "out", "--before-after", "--json")
    assert code == 0
    sheets = ["out/a.before-after.png", "out/sub/a.before-after.png"]
    assert [json.loads(line)["before_after"] for line in out.splitlines()] == sheets
    for name in ("a", "sub/a"):
        source = next(Path("in").glob(f"{name}.*"))
        sheet = read_image(f"out/{name}.before-after.png").pixels
        np.testing.assert_array_equal(sheet[:, :60], read_image(source).pixels)
        np.testing.assert_array_equal(sheet[:, -60:], read_image(f"out/{name}.png").pixels)
    assert shell("restore", "in", "--before-after")[0] == 0
    assert shell("restore", "in", "--skip-existing")[2].count("skipped: ") == 2  # sheets are no inputs
    assert {path.name for path in Path("in").iterdir()} == {"a.png", "a.restored.png", "a.before-after.png", "sub"}


def test_sheets_of_one_name_keep_the_suffix_of_their_result(shell: Shell) -> None:
    Path("in").mkdir()
    for suffix in ("png", "webp"):
        Path(f"in/a.{suffix}").write_bytes(encode(picture(), suffix.upper()))
    assert shell("restore", "in", "-o", "out", "--before-after", "--format", "same")[0] == 0
    names = ["a.png", "a.png.before-after.png", "a.webp", "a.webp.before-after.png"]
    assert sorted(path.name for path in Path("out").iterdir()) == names


def test_a_sheet_that_exists_is_kept_unless_forced(shell: Shell) -> None:
    Path("a.png").write_bytes(encode(picture(5, 6)))
    Path("a.before-after.png").write_bytes(b"precious")
    code, _, err = shell("restore", "a.png", "--before-after")
    assert code == 2
    assert_one_line(err, "a.before-after.png: exists; --force overwrites it")
    assert shell.listing() == ["a.before-after.png", "a.png"]
    assert shell("restore", "a.png", "--before-after", "--force")[0] == 0
    with Image.open("a.before-after.png") as sheet:
        assert sheet.size == (14, 5)


def test_mistakes_and_bad_files_are_told_without_importing_pytorch(tmp_path: Path) -> None:
    for name in ("a.png", "a.restored.png"):
        (tmp_path / name).write_bytes(encode(picture(5, 6)))
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    program = (
        "import sys\n"
        "from agents.cli import main\n"
        "for word in ('none.jpg', 'a.png', 'bad.jpg'):\n"
        "    assert main(['restore', word]) == 2\n"
        "assert main(['restore', 'a.png', '-o', 'b.png', '--super-resolver', 'sed']) == 2\n"
        "assert not {'torch', 'matplotlib', 'skimage', 'rich'} & sys.modules.keys()\n"
    )
    done = run_python("-W", "error", "-c", program, folder=tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (0, 4)
