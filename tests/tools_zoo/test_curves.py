from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from restore_env.images.decoding import read_image
from tools_zoo.training.curves import COLOURS, draw_curves, read_tensorboard


def rows_of(path: Path, colour: str) -> np.ndarray[tuple[int, ...], np.dtype[np.intp]]:
    """The lowest row with a colour, below any legend, in each column of a picture that has it, from left to right."""
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    hits = (read_image(path).pixels == np.array(wanted)).all(axis=2)
    columns = np.flatnonzero(hits.any(axis=0))
    return np.asarray(len(hits) - 1 - hits[::-1, columns].argmax(axis=0))


def test_curves_are_where_their_numbers_are(tmp_path: Path) -> None:
    """One rises, one falls, below it; the picture's rows count from the top."""
    x = np.arange(100)
    curves = {"rising": (x, 10 + x / 10), "falling": (x, 5 - x / 50)}
    for name, curve in curves.items():
        draw_curves(tmp_path / f"{name}.png", {name: curve}, "steps", "PSNR, dB")  # alone, without a legend
    rising, falling = (rows_of(tmp_path / f"{name}.png", COLOURS[0]) for name in curves)
    assert len(rising) > 600
    assert (np.diff(rising[:600]) <= 0).all()
    assert (np.diff(falling[:600]) >= 0).all()
    draw_curves(tmp_path / "both.png", curves, "steps", "PSNR, dB")
    above, below = (np.median(rows_of(tmp_path / "both.png", colour)) for colour in COLOURS[:2])
    assert above < below - 50


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
