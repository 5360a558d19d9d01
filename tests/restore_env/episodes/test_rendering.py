from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from restore_env import ImageRestoreEnv, ImageRestoreVectorEnv
from restore_env.episodes.rendering import Panel, panel_row
from tests.support.toolkit import photographs, pixelwise_toolbox

ARGUMENTS: dict[str, Any] = {"images": photographs(), "patch_size": 40, "toolbox": pixelwise_toolbox()}


def test_frames_have_one_size_and_change_with_the_episode() -> None:
    env = ImageRestoreEnv(**ARGUMENTS, render_mode="rgb_array")
    env.reset(seed=0)
    frames = [env.render()]
    for action in (0, 2, 1):
        env.step(np.int64(action))
        frames.append(env.render())
    pictures = [frame for frame in frames if frame is not None]
    assert len(pictures) == 4
    assert {(frame.shape, frame.dtype) for frame in pictures} == {(pictures[0].shape, np.dtype(np.uint8))}
    for before, after in itertools.pairwise(pictures):
        assert not np.array_equal(before, after)


def test_target_and_current_image_are_in_the_picture() -> None:
    target = np.zeros((42, 42, 3), np.uint8)
    target[..., 1] = 255
    env = ImageRestoreEnv(**ARGUMENTS, render_mode="rgb_array")
    env.reset(options={"distorted": 255 - target, "target": target})
    frame = env.render()
    assert frame is not None
    colours = {tuple(pixel) for pixel in frame.reshape(-1, 3)[::7].tolist()}
    assert {(0, 255, 0), (255, 0, 255)} <= colours


def test_each_slot_of_the_vector_environment_is_drawn() -> None:
    env = ImageRestoreVectorEnv(2, **ARGUMENTS, render_mode="rgb_array")
    env.reset(seed=0)
    for _ in range(5):
        env.step(np.zeros(2, dtype=np.int64))
    first, second = env.render() or ()
    assert not np.array_equal(first, second)


def test_without_a_mode_nothing_is_drawn() -> None:
    env = ImageRestoreEnv(**ARGUMENTS)
    env.reset(seed=0)
    assert env.render() is None


def test_a_window_needs_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(ValueError, match="rgb_array"):
        ImageRestoreEnv(**ARGUMENTS, render_mode="human")


def test_long_captions_are_cut_to_their_panel() -> None:
    image = np.zeros((10, 10, 3), np.uint8)
    short, long = panel_row([Panel(image, "a")], 100), panel_row([Panel(image, "a" * 500)], 100)
    assert short.shape == long.shape
    assert (long[:, -8:] == 250).all()
