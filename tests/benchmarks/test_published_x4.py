"""RFDN and CARN-M: published x4 networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from benchmarks.baselines import published_x4, teach
from benchmarks.baselines.complexity import macs_per_pixel
from benchmarks.baselines.published_x4 import CARNM, PUBLISHED, RFDN, load_published
from benchmarks.compare.metrics import metrics_of
from restore_env.images.decoding import Photo
from restore_env.images.encoding import write_image
from restore_env.images.sources import ImageSource, open_images
from restore_env.images.tiling import to_pixels, to_tensor
from sr_models.training.blind_distortion import bicubic
from sr_models.training.teacher import output_path
from tests.support.toolkit import photographs

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files like the published ones, with random weights."""
    folder = tmp_path_factory.mktemp("peers")
    torch.save(RFDN().state_dict(), folder / PUBLISHED["RFDN"][1])
    spare = {"upsample.up2.body.0.weight": torch.zeros(1)}  # of another scale, as in the published file
    torch.save({**CARNM().state_dict(), **spare}, folder / PUBLISHED["CARN-M"][1])
    return folder


def test_sizes_and_computation_are_the_published_ones() -> None:
    assert sum(p.numel() for p in RFDN().parameters()) == 433_448
    assert macs_per_pixel(CARNM(), size=64) * 320 * 180 / 1e9 == pytest.approx(32.5, abs=0.05)  # for 1280x720 out
    assert macs_per_pixel(RFDN(), size=256) * 256 * 256 / 1e9 == pytest.approx(27.1, abs=0.2)  # AIM 2020


@pytest.mark.parametrize("name", PUBLISHED)
def test_images_of_any_size_are_upscaled(name: str, folder: Path) -> None:
    assert load_published(name, folder)(torch.rand(2, 3, 15, 22)).shape == (2, 3, 60, 88)


@pytest.mark.parametrize(("name", "expected"), [("RFDN", 32.16), ("CARN-M", 31.88)])
def test_published_weights_give_the_published_psnr(name: str, expected: float, shared: Path) -> None:
    tool, psnr_y = load_published(name, shared / "data" / "weights"), metrics_of(4)["psnr_y"]
    source = open_images(shared / "data" / "public_test" / "set5", min_size=64)
    assert isinstance(source, ImageSource)
    targets = [source.pixels(index) for index in range(len(source))]
    with torch.inference_mode():
        scores = [psnr_y(tool(to_tensor(bicubic(target))).clamp(0, 1), to_tensor(target)) for target in targets]
    assert float(torch.cat(scores).mean()) == pytest.approx(expected, abs=0.005)


def test_a_missing_file_and_another_network(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"RFDN_AIM\.pth: no such file"):
        load_published("RFDN", tmp_path)
    torch.save(RFDN(8).state_dict(), tmp_path / PUBLISHED["RFDN"][1])
    with pytest.raises(ValueError, match=r"RFDN_AIM\.pth: not RFDN"):
        load_published("RFDN", tmp_path)


def test_safetensors_files_are_read_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published_x4, "PUBLISHED", {"RFDN": (RFDN, "rfdn.safetensors")})
    save_file(RFDN().state_dict(), tmp_path / "rfdn.safetensors")
    assert load_published("RFDN", tmp_path).scale == 4


def test_a_teachers_outputs_are_written_once(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    write_image(photos / "a.png", Photo(photographs(1, 150, 201)[0]))
    words = ["--images", str(photos), "--weights", str(folder), "--out", str(out), "--network", "CARN-M"]
    assert teach.main(words) == 0
    assert "2 outputs of CARN-M" in capsys.readouterr().out
    source = open_images(photos, min_size=96)
    assert isinstance(source, ImageSource)
    whole = np.load(output_path(out, source.identity(0), 1.0))
    assert whole.shape == (148, 200, 3)
    small = to_tensor(bicubic(np.ascontiguousarray(source.pixels(0)[:148, :200])))
    tool = load_published("CARN-M", folder)
    with torch.inference_mode():
        turned = tool(small.rot90(2, (2, 3)).contiguous()).rot90(-2, (2, 3))
        expected = to_pixels((tool(small) + turned) / 2)
    assert np.abs(whole.astype(int) - expected).max() <= 1
    assert teach.main(words) == 0
    assert "0 outputs" in capsys.readouterr().out
    assert teach.main([*words[:3], str(tmp_path), *words[4:]]) == 2
    assert capsys.readouterr().err.count("\n") == 1
