"""x4 networks by what an image shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks import contents
from benchmarks.compare.methods import lanczos_upscale
from benchmarks.compare.metrics import flip, metrics_of, ssimulacra2
from restore_env.toolbox import bicubic_upscale


def test_every_content_is_an_rgb_image() -> None:
    for name, make in contents.CONTENTS.items():
        image = make()
        assert image.shape[2:] == (3,), name
        assert min(image.shape[:2]) >= 192
        assert image.std() > 1


def test_what_is_worse_than_lanczos_is_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = {name: contents.CONTENTS[name] for name in ("table", "face")}
    monkeypatch.setattr(contents, "CONTENTS", few)
    file = tmp_path / "out.json"
    assert contents.main(["--methods", "bicubic", "lanczos", "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    own = json.loads(file.read_text())["methods"]
    scores = [own[name]["scores"]["psnr_y"]["face"] for name in ("bicubic", "lanczos")]
    assert scores[0] < scores[1]
    assert f"| face | **{scores[0]:.2f}** | {scores[1]:.2f} |" in printed


def test_an_unknown_method_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert contents.main(["--methods", "magic"]) == 2
    assert "unknown method 'magic'" in capsys.readouterr().err


def test_a_weave_on_flat_ground_is_found() -> None:
    def weaving(small: Tensor) -> Tensor:
        large = bicubic_upscale(small)
        large[..., ::4] += 2 / 255
        return large

    assert contents.worst_lattice(bicubic_upscale) < 0.01
    assert contents.worst_lattice(lanczos_upscale) < 0.01
    assert 0.5 < contents.worst_lattice(weaving) < 4


def test_lanczos_keeps_the_batch_and_every_colour() -> None:
    images = torch.rand(2, 3, 5, 6)
    upscaled = lanczos_upscale(images)
    assert upscaled.shape == (2, 3, 20, 24)
    assert torch.allclose(upscaled.mean((2, 3)), images.mean((2, 3)), atol=0.02)


def test_judges_rank_as_eyes_do() -> None:
    torch.manual_seed(0)
    target = contents.CONTENTS["face"]()
    noise = (30 * torch.randn(target.shape)).numpy()
    worse = [(target + share * noise).clip(0, 255).astype("uint8") for share in (0.1, 1.0)]
    assert ssimulacra2(target, target) == pytest.approx(100)
    assert flip(target, target) == 0
    assert ssimulacra2(worse[0], target) > ssimulacra2(worse[1], target)
    assert flip(worse[0], target) < flip(worse[1], target)
    assert {"ssimulacra2", "flip"} <= set(metrics_of(4))
