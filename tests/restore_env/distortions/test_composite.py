"""Composites, whose distortion varies in space: what each part shows, and that all follows from the seed."""

from __future__ import annotations

import json
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence as same
from gymnasium.vector import SyncVectorEnv

import restore_env
from restore_env import EpisodeRecord, ImageRestoreEnv, ImageRestoreVectorEnv
from restore_env.distortions.crop import Crop
from restore_env.distortions.device import distort_crops
from restore_env.distortions.mixed import (
    COMPOSITE_SHAPES,
    ROWS,
    Composite,
    Distortion,
    draw_composite,
    draw_distortion,
)
from restore_env.distortions.photographic import Photographic
from restore_env.distortions.protocol import Levels
from tests.support.toolkit import photographs, pixelwise_toolbox

(PHOTO,) = photographs(1, 120, 160)
WHOLE = (0, 0, 120, 160)
CLEAN, BLURRED, SAVED, BOTH = Photographic("clean"), Levels(2.0), Levels(jpeg_quality=20), Levels(1.0, 0.0, 40)
PARTS = ((CLEAN, BLURRED), (SAVED, BOTH))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_hard_border_divides_the_parts_exactly() -> None:
    image = Composite(PARTS, row=0.25, column=0.5).patch(PHOTO, WHOLE, rng())
    for part, place in zip(
        (part for row in PARTS for part in row),
        (np.s_[:30, :80], np.s_[:30, 80:], np.s_[30:, :80], np.s_[30:, 80:]),
        strict=True,
    ):
        np.testing.assert_array_equal(image[place], part.patch(PHOTO, WHOLE, rng())[place])


@pytest.mark.parametrize("parts", [((CLEAN, BLURRED),), ((CLEAN,), (BLURRED,))])
def test_halves_lie_in_a_row_or_a_column(parts: Any) -> None:
    image = Composite(parts, row=0.5, column=0.5).patch(PHOTO, WHOLE, rng())
    first, second = (np.s_[:, :80], np.s_[:, 80:]) if len(parts) == 1 else (np.s_[:60], np.s_[60:])
    np.testing.assert_array_equal(image[first], PHOTO[first])
    np.testing.assert_array_equal(image[second], BLURRED.patch(PHOTO, WHOLE, rng())[second])


def test_a_soft_border_passes_from_one_part_into_the_next() -> None:
    black, white = (np.full((40, 60, 3), value, np.uint8) for value in (0, 250))

    class Colour(Photographic):
        def patch(self, *_: Any, **__: Any) -> Any:
            return white

    image = Composite(((CLEAN, Colour("white")),), 0.5, 0.5, softness=10).patch(black, (0, 0, 40, 60), rng())
    assert (image == image[:1]).all()
    row = image[0, :, 0].astype(int)
    assert (row[:25] == 0).all()
    assert (row[35:] == 250).all()
    assert (np.diff(row[24:36]) > 0).all()
    np.testing.assert_allclose(row + row[::-1], 250, atol=1)


@pytest.mark.parametrize(("softness", "factor"), [(0.0, 1), (12.5, 1), (6.0, 4)])
def test_a_window_is_cut_from_the_whole_composite(softness: float, factor: int) -> None:
    """Noise would differ: it is drawn for the window."""
    composite = Composite(PARTS, 0.4, 0.55, softness)
    height, width = (length // factor for length in PHOTO.shape[:2])
    whole = composite.patch(PHOTO, (0, 0, height, width), rng(), factor)
    for top, left in ((0, 0), (7, 11), (height - 16, width - 16), (height // 2 - 10, width // 2 - 4)):
        patch = composite.patch(PHOTO, (top, left, 16, 16), rng(), factor)
        np.testing.assert_array_equal(patch, whole[top : top + 16, left : left + 16])


def test_a_part_that_is_not_shown_does_not_matter() -> None:
    noisy = Levels(noise_sigma=20)
    one, other = (Composite(((hidden, noisy),), 0.5, 0.5) for hidden in (CLEAN, Levels(3.0, 30.0, 30)))
    patches = [composite.patch(PHOTO, (20, 90, 50, 50), rng()) for composite in (one, other)]
    np.testing.assert_array_equal(patches[0], patches[1])
    assert patches[0].astype(int).std() > PHOTO[20:70, 90:140].std()


def test_a_seed_draws_the_same_composite_and_patch() -> None:
    shapes, kinds, soft = set(), set(), 0
    for seed in range(60):
        one, other = (draw_distortion("composite", rng(seed)) for _ in range(2))
        assert isinstance(one, Composite)
        assert one == other == draw_composite(rng(seed))
        described = json.loads(json.dumps(one.as_dict()))
        assert (described["kind"], described["softness"]) == ("composite", one.softness)
        shapes.add((described["rows"], described["columns"]))
        count = described["rows"] * described["columns"]
        kinds |= {described[f"part{number}_kind"] for number in range(1, count + 1)}
        assert f"part{count + 1}_kind" not in described
        soft += one.softness > 0
    assert shapes == set(COMPOSITE_SHAPES)
    assert kinds == {row.name for row in ROWS if row.weight}
    assert 15 < soft < 45
    for seed in range(5):
        patches = [draw_composite(rng(seed)).patch(PHOTO, (20, 40, 63, 63), rng(seed)) for _ in range(2)]
        np.testing.assert_array_equal(patches[0], patches[1])


def test_strengths_are_those_of_the_worst_part() -> None:
    strengths = Composite(PARTS, 0.5, 0.5).strengths
    assert strengths == (BLURRED.strengths[0], 0, SAVED.strengths[2])


def test_a_device_gets_the_hosts_patches() -> None:
    crop = Crop(PHOTO, "photo", 1.0, 1, 63, 20, 50)
    drawn: list[Distortion] = [draw_composite(rng(1)), Levels(1.0, 10.0, 50)]
    patches = distort_crops([crop] * 2, drawn, [5, 6], "cpu").numpy()
    np.testing.assert_array_equal(patches[0], crop.distorted(drawn[0], rng(5)))


def test_both_environments_play_the_same_composites() -> None:
    arguments: Any = {
        **restore_env.IDS["ImageRestoreRegions-v0"],
        "images": photographs(2),
        "toolbox": pixelwise_toolbox(),
        "patch_size": 40,
        "info": "full",
    }
    native = ImageRestoreVectorEnv(4, **arguments)
    reference = SyncVectorEnv([lambda: ImageRestoreEnv(**arguments)] * 4)
    assert same(native.reset(seed=3), reference.reset(seed=3))
    for step in range(4):
        actions = np.array([0, 1, 2, 3]) if step % 2 else np.array([3, 3, 0, 1])
        assert same(native.step(actions), reference.step(actions))


def test_the_levels_of_all_parts_are_in_the_full_info() -> None:
    env = gym.make("ImageRestoreRegions-v0", images=photographs(2), toolbox=pixelwise_toolbox(), info="full")
    distortion = env.reset(seed=0)[1]["distortion"]
    assert distortion["kind"] == "composite"
    assert {"part1_kind", "part2_kind", "rows", "columns", "softness"} <= set(distortion)
    record: EpisodeRecord = env.unwrapped.record()  # type: ignore[attr-defined]
    assert record.validate(env).okay
