from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from restore_env import EpisodeRecord, ImageRestoreEnv, Task
from restore_env import sampling as starts
from restore_env.distortions.protocol import Levels
from restore_env.distortions.saturation import MAX_GAIN, apply_curve, saturation_curve
from restore_env.patches import PatchSampler
from restore_env.sampling import StartSampler
from tests.support.pictures import opened, picture
from tests.support.toolkit import inverted

SEEDS = st.integers(0, 2**32)
NOTHING = Levels()
"""Distorts nothing, so that inputs equal targets."""


@given(seed=SEEDS, low=st.integers(0, 254), spread=st.integers(1, 255))
@settings(max_examples=60, deadline=None)
def test_a_curve_brightens_or_darkens_by_a_bounded_gain(seed: int, low: int, spread: int) -> None:
    image = np.random.default_rng(1).integers(low, min(255, low + spread) + 1, (16, 18, 3), dtype=np.uint8)
    before = image.copy()
    curve = saturation_curve(image, np.random.default_rng(seed))
    changed = apply_curve(image, curve)
    assert_array_equal(image, before)
    assert_array_equal(curve, saturation_curve(image, np.random.default_rng(seed)))
    assert_array_equal(changed, curve[image])
    values = np.arange(256)
    lighter = bool((curve >= values).all())
    assert lighter or bool((curve <= values).all())
    light, reached = (values, curve) if lighter else (255 - values, 255 - curve)
    assert (reached <= np.minimum(255, MAX_GAIN * light + 0.5)).all()
    assert (np.diff(curve.astype(int)) >= 0).all()
    assert apply_curve(image, None) is image


def test_any_share_of_the_patch_is_white_or_black() -> None:
    patch = picture(12, 10)
    rng = np.random.default_rng(0)
    changed = [apply_curve(patch, saturation_curve(patch, rng)) for _ in range(200)]
    flat = np.full((16, 18, 3), 128, np.uint8)
    assert len(np.unique(apply_curve(flat, saturation_curve(flat, rng)))) == 1
    for end in (255, 0):
        shares = [float((part == end).mean()) for part in changed]
        assert 70 < sum(share > 0.02 for share in shares) < 130  # about one time in two
        assert min(shares) < 0.02
        assert max(shares) > 0.6  # on this picture a gain of 3 reaches two thirds
        assert sum(0.1 < share < 0.4 for share in shares) > 15


@pytest.mark.parametrize("device", [None, torch.device("cpu")])
@pytest.mark.parametrize("factor", [1, 4])
def test_episodes_start_from_saturated_patches(
    factor: int, device: torch.device | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starts, "draw_distortion", lambda severity, rng: NOTHING)
    source = opened([picture(90, 100)])
    made = partial(StartSampler, source, patch_size=16, factors=(factor,), device=device)
    plain, none, always = made(), made(saturation_prob=0.0), made(saturation_prob=1.0)
    ends = []
    for seed in range(12):
        one, same, saturated = (sampler.draw(seed) for sampler in (plain, none, always))
        assert_array_equal(one.distorted, same.distorted)
        assert one.distortion == same.distortion
        assert "saturated" not in one.distortion
        assert saturated.distortion["saturated"] is True
        assert (saturated.target >= one.target).all() or (saturated.target <= one.target).all()
        ends.append(float(((saturated.target == 0) | (saturated.target == 255)).mean()))
        if factor == 1:
            assert_array_equal(saturated.distorted, saturated.target)
        else:  # the smaller input is as bright as its target
            change = np.asarray(saturated.distorted, float).mean() - np.asarray(one.distorted, float).mean()
            assert change == pytest.approx(saturated.target.mean() - one.target.mean(), abs=6)
    assert max(ends) > 0.4


def test_a_share_of_the_episodes_is_saturated_on_host_and_device_alike() -> None:
    source = opened([picture(90, 100)])
    host, device = (StartSampler(source, saturation_prob=0.4, device=at) for at in (None, torch.device("cpu")))
    drawn = list(host.starts(list(range(60))))
    assert 12 < sum("saturated" in start.distortion for start in drawn) < 36
    for one, other in zip(drawn, device.starts(list(range(60))), strict=True):
        assert_array_equal(one.target, other.target)
        assert one.distortion == other.distortion
    own = StartSampler(source, inverted(), patch_size=16, saturation_prob=1.0).draw(0)
    assert own.distortion["saturated"] is True
    assert_array_equal(own.distorted, 255 - own.target)  # a user's distortion comes after the curve


@pytest.mark.parametrize("device", [None, "cpu"])
def test_inputs_and_targets_of_training_are_saturated_alike(device: str | None) -> None:
    def saturated(share: float) -> float:
        sampler = PatchSampler(
            opened([picture(40, 50)]), [0], 16, lambda rng: NOTHING, device=device, saturation_prob=share
        )
        inputs, targets = (np.asarray(side) for side in sampler.batch(np.random.default_rng(3), 60))
        assert_array_equal(inputs, targets)
        return float((((targets == 0) | (targets == 255)).mean((1, 2, 3)) > 0.1).mean())

    assert saturated(0.0) == 0
    assert 0.2 < saturated(0.5) < 0.65
    assert saturated(1.0) > 0.7


def test_an_episode_with_saturation_can_be_replayed(tmp_path: Path) -> None:
    env = ImageRestoreEnv(toolbox="tests.support.toolkit:pixelwise_toolbox", saturation_prob=1.0, patch_size=24)
    env.reset(seed=0)
    env.step(np.int64(0))
    env.record().save(tmp_path / "episode.json")
    record = EpisodeRecord.load(tmp_path / "episode.json")
    assert record.distortion["saturated"] is True
    assert record.validate(trusted=True).okay


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan"), None, "a", [0.5]])
def test_the_probability_must_lie_in_0_to_1(share: Any) -> None:
    with pytest.raises(ValueError, match="saturation_prob must be a number in"):
        Task(saturation_prob=share)
