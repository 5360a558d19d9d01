"""``imagerestore evaluate``: what is measured, how it is told, which folders are refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from agents.commands.evaluate import MEASURED
from agents.restoration.restorer import quality
from restore_env.images.decoding import read_image
from restore_env.metrics import ssim
from restore_env.toolbox import bicubic_upscale
from tests.support.command_line import TOOLS, Shell, assert_one_line
from tests.support.image_files import encode, picture
from tests.support.toolkit import photographs

pytestmark = pytest.mark.usefixtures("one_thread")


def write_pairs(folder: Path, count: int = 2, factor: int = 1) -> None:
    for name in ("lq", "gt"):
        (folder / name / "sub").mkdir(parents=True)
    for index, clean in enumerate(photographs(count, 60, 80)):
        distorted = clean[::factor, ::factor] // 2 + 50
        (folder / "gt" / "sub" / f"{index}_gt.png").write_bytes(encode(clean))
        (folder / "lq" / "sub" / f"{index}_in.png").write_bytes(encode(distorted))


@pytest.mark.parametrize("factor", [1, 4])
def test_evaluation_as_json(factor: int, shell: Shell) -> None:
    write_pairs(shell.folder, factor=factor)
    code, out, err = shell("evaluate", "--distorted", "lq", "--target", "gt", "--json", "--max-steps", "2")
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
            before = bicubic_upscale(torch.from_numpy(small)[None].float() / 255, 4).clamp(0, 1).mul(255).round()
            plain = before[0].permute(1, 2, 0).numpy().astype(np.uint8)
            assert row["psnr_before"] == quality(plain, clean)


def test_evaluation_as_a_table(shell: Shell) -> None:
    write_pairs(shell.folder, 3)
    code, out, err = shell("evaluate", "--distorted", "lq", "--target", "gt", "--max-steps", "1")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == [*("image", "PSNR", "after", "gain", "SSIM", "after", "seconds", "GMACs", "toolchain")]
    assert [line.split()[0] for line in lines[1:]] == ["sub/0_in.png", "sub/1_in.png", "sub/2_in.png", "mean"]
    assert all(line.split()[-1] in TOOLS for line in lines[1:4])


def test_evaluation_of_small_images_has_no_ssim(shell: Shell) -> None:
    for folder in ("lq", "gt"):
        Path(folder).mkdir()
        Path(folder, "a.png").write_bytes(encode(picture(10, 40)))
    arguments = ["evaluate", "--distorted", "lq", "--target", "gt"]
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
    "no distorted": (["--distorted", "nope", "--target", "gt"], "nope: no such folder"),
    "no target": (["--distorted", "lq", "--target", "nope"], "nope: no such folder"),
    "no partner": (["--distorted", "lq", "--target", "lonely"], "no partner"),
    "no images": (["--distorted", "empty", "--target", "gt"], "empty: the folder holds no image files"),
    "sizes": (["--distorted", "lq", "--target", "odd"], "do not fit together"),
    "damaged": (["--distorted", "lq", "--target", "damaged"], "damaged/sub/1.png"),
    "toolbox": (["--distorted", "lq", "--target", "gt", "--toolbox", "nope"], "nope: no toolbox"),
    "scale": (["--distorted", "lq", "--target", "gt", "--scale", "4"], "its target is 1 times as large, not 4"),
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
