from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from restore_env import EpisodeRecord, ImageRestoreEnv, Task
from restore_env.distortions import draw_levels
from restore_env.exposure import MOST_GAIN, clip_part
from restore_env.starts import StartSampler
from tests.pictures import opened, picture
from tools_zoo.patches import PatchSampler

Byte = npt.NDArray[np.uint8]
WINDOW = (2, 3, 12, 10)
SEEDS = st.integers(0, 2**32)


def inside(image: Byte) -> Byte:
    top, left, height, width = WINDOW
    return image[top : top + height, left : left + width]


@given(seed=SEEDS, low=st.integers(0, 254), spread=st.integers(1, 255))
@settings(max_examples=60, deadline=None)
def test_every_value_goes_one_way_by_a_bounded_gain(seed: int, low: int, spread: int) -> None:
    image = np.random.default_rng(1).integers(low, min(255, low + spread) + 1, (16, 18, 3), dtype=np.uint8)
    before = image.copy()
    changed = clip_part(image, WINDOW, np.random.default_rng(seed))
    assert_array_equal(image, before)
    assert_array_equal(changed, clip_part(image, WINDOW, np.random.default_rng(seed)))
    assert changed.shape == image.shape
    assert changed.dtype == np.uint8
    lighter = bool((changed >= image).all())
    assert lighter or bool((changed <= image).all())
    light, reached = (image, changed) if lighter else (255 - image, 255 - changed)
    assert (reached <= np.minimum(255, MOST_GAIN * light.astype(float) + 0.5)).all()
    order = np.argsort(image, axis=None)
    assert (np.diff(changed.ravel()[order].astype(int)) >= 0).all()  # all places and channels by one curve


def test_any_share_of_the_window_is_white_or_black() -> None:
    image = picture(16, 18)
    rng = np.random.default_rng(0)
    changed = [inside(clip_part(image, WINDOW, rng)) for _ in range(200)]
    white, black = ([float((part == end).mean()) for part in changed] for end in (255, 0))
    for shares in (white, black):
        assert 70 < sum(share > 0.02 for share in shares) < 130  # about one time in two
        assert min(shares) < 0.02
        assert max(shares) > 0.6  # on this picture a gain of 3 reaches two thirds
        assert sum(0.1 < share < 0.4 for share in shares) > 15


def test_a_window_of_one_colour_is_no_obstacle() -> None:
    for value in (0, 128, 255):
        image = np.full((16, 18, 3), value, np.uint8)
        for seed in range(8):
            assert len(np.unique(clip_part(image, WINDOW, np.random.default_rng(seed)))) == 1


@pytest.mark.parametrize("factor", [1, 4])
def test_episodes_start_from_what_was_clipped(factor: int) -> None:
    source = opened([picture(90, 100)])
    made = partial(StartSampler, source, patch_size=16, factors=(factor,))
    plain, none, all_ = made(), made(clipped_share=0.0), made(clipped_share=1.0)
    ends = []
    for seed in range(12):
        one, same, clipped = (sampler.draw(seed) for sampler in (plain, none, all_))
        assert_array_equal(one.degraded, same.degraded)
        assert one.distortion == same.distortion
        assert "clipped" not in one.distortion
        assert clipped.distortion["clipped"] is True
        assert (clipped.target >= one.target).all() or (clipped.target <= one.target).all()
        ends.append(float(((clipped.target == 0) | (clipped.target == 255)).mean()))
    assert max(ends) > 0.4


def test_a_share_of_the_episodes_is_clipped_wherever_it_is_distorted() -> None:
    import torch

    source = opened([picture(90, 100)])
    host, device = (StartSampler(source, clipped_share=0.4, device=at) for at in (None, torch.device("cpu")))
    starts = list(host.starts(list(range(60))))
    assert 12 < sum("clipped" in start.distortion for start in starts) < 36
    for one, other in zip(starts, device.starts(list(range(60))), strict=True):
        assert_array_equal(one.target, other.target)
        assert one.distortion == other.distortion


def test_training_patches_are_pairs_of_what_was_clipped() -> None:
    def drawn(share: float, device: str | None = None) -> tuple[Byte, Byte]:
        sampler = PatchSampler(
            opened([picture(40, 50)]), [0], 16, partial(draw_levels, "mild"), device=device, clipped_share=share
        )
        return tuple(np.asarray(side) for side in sampler.batch(np.random.default_rng(3), 60))  # type: ignore[return-value]

    def ends(targets: Byte) -> npt.NDArray[Any]:
        return np.asarray(((targets == 0) | (targets == 255)).mean((1, 2, 3)) > 0.1)

    assert not ends(drawn(0.0)[1]).any()
    assert ends(drawn(1.0)[1]).mean() > 0.7
    assert 0.2 < ends(drawn(0.5)[1]).mean() < 0.65
    inputs, targets = drawn(1.0, "cpu")
    white = targets == 255
    assert abs(inputs[white].mean() - 255) < 60  # the input is a twin of the clipped patch, not of the photograph


def test_an_episode_of_a_clipped_patch_can_be_played_again(tmp_path: Path) -> None:
    env = ImageRestoreEnv(toolbox="tests.toolkit:pixelwise_toolbox", clipped_share=1.0, patch_size=24)
    env.reset(seed=0)
    env.step(np.int64(0))
    env.record().save(tmp_path / "episode.json")
    record = EpisodeRecord.load(tmp_path / "episode.json")
    assert record.distortion["clipped"] is True
    assert record.validate().okay


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_is_a_share(share: float) -> None:
    with pytest.raises(ValueError, match="clipped_share must lie in"):
        Task(clipped_share=share)
