"""What ``benchmarks.compare.__main__`` says of wrong or double arguments and damaged files."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from benchmarks.compare import __main__ as compare
from tests.support.toolkit import photographs


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    Image.fromarray(photographs(1, 80, 100)[0]).save(folder / "a.png")
    return folder


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--methods", "magic"], "unknown method 'magic' of the task same: choose from input,"),
        (["--reference", "magic"], "unknown method 'magic'"),
        (["--weights", "vdsr"], "--weights takes NAME=FILE, got 'vdsr'"),
        (["--weights", "vgg=x"], "unknown baseline 'vgg'"),
        (["--severity", "clean"], "nothing to restore"),
        (["--figure", "x.bmp"], "a figure ends in"),
        (["--json", "no/such/folder/x.json"], "no/such/folder: no such folder"),
        (["--crops", "x.png"], "--crops needs --photographs"),
        (["--task", "x4", "--squeezenet", "none.npz"], "none.npz: no such file"),
        (["--device", "tpu"], "device 'tpu' cannot be used"),
        (["--methods", "published"], "no method gave results; published: give the folder"),
    ],
)
def test_mistakes_are_told_in_one_line(
    more: list[str], message: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare.main(["--images", str(photos), "--patches", "1", *more]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err.splitlines()[-1]


def test_what_is_named_twice_is_measured_once(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    twice = ["--methods", "input", "input", "--severity", "mild", "mild"]
    assert compare.main(["--images", str(photos), "--patches", "1", *twice]) == 0
    printed = capsys.readouterr()
    assert printed.out.count("**mild**") == 1
    assert printed.out.count("| input |") == 2
    assert "[1/1] input" in printed.err


def test_a_cache_that_is_a_file_is_told_before_anything_is_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    for cache in (tmp_path / "file", tmp_path / "file" / "inside"):
        assert compare.main(["--images", str(tmp_path / "none"), "--cache", str(cache)]) == 2
        assert capsys.readouterr().err == (
            f"benchmarks.compare: error: {cache}: no folder, and none can be made there: a file is in its place\n"
        )


def test_damaged_measurements_are_named(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--images", str(photos), "--patches", "1", "--methods", "input", "--cache", str(tmp_path)]
    assert compare.main(words) == 0
    (measured,) = tmp_path.glob("input-*.json")
    measured.write_text("{")
    assert compare.main(words) == 2
    assert f"{measured}: damaged; delete it" in capsys.readouterr().err
