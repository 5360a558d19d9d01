from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from tools_zoo.training.curves import draw_curves, read_tensorboard


def test_points_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    curves = {"a": ([0.0, 1, 2, 3], [1.0, float("nan"), 2, 3]), "none": ([0.0], [float("inf")])}
    draw_curves(tmp_path / "a.png", curves, "x", "y")
    draw_curves(tmp_path / "b.png", {"a": ([0, 2, 3], [1, 2, 3])}, "x", "y")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    ("name", "curves", "message"),
    [
        ("a.png", {}, "no point to draw"),
        ("a.png", {"a": ([0.0], [float("nan")])}, "no point to draw"),
        ("a.jpg", {"a": ([0], [1])}, "a figure ends in .png, .pdf or .svg"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    name: str, curves: dict[str, tuple[list[float], list[float]]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        draw_curves(tmp_path / name, curves, "x", "y")
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_runs_scalars_are_read_as_one(tmp_path: Path) -> None:
    for first in (0, 20):
        writer = SummaryWriter(str(tmp_path), filename_suffix=f".{first}")
        for step in range(first, first + 20, 5):
            writer.add_scalar("psnr/output", 20 + step / 10, step)
        writer.add_scalar("train/loss", 0.5, first)
        writer.close()
    curves = read_tensorboard(tmp_path)
    assert set(curves) == {"psnr/output", "train/loss"}
    np.testing.assert_array_equal(curves["psnr/output"][0], np.arange(0, 40, 5))
    np.testing.assert_allclose(curves["psnr/output"][1], 20 + np.arange(0, 40, 5) / 10, atol=1e-5)


def test_a_folder_without_a_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no TensorBoard event files"):
        read_tensorboard(tmp_path)
