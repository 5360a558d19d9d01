"""The state of environments as plain values: written to a file, read, and gone on from."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import data_equivalence as same
from gymnasium.vector import AutoresetMode

from restore_env import ImageRestoreEnv, ImageRestoreVectorEnv
from tests.support.level_sets import small_levels
from tests.support.toolkit import photographs, pixelwise_toolbox


def through_a_file(state: dict[str, Any]) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize("looked_up", [False, True])
def test_an_environment_goes_on_from_a_file(looked_up: bool, mode: AutoresetMode, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"autoreset_mode": mode, "stop_if_worse": True, "max_steps": 2}
    if looked_up:
        arguments |= {"levels": small_levels(tmp_path, depth=2), "observation": "spectrum"}
    else:
        toolbox = pixelwise_toolbox(super_resolver=True)
        arguments |= {"images": photographs(), "toolbox": toolbox, "upscale": (1, 4), "patch_size": 40}
    env, other = (ImageRestoreVectorEnv(4, **arguments) for _ in range(2))
    env.reset(seed=5)
    actions = np.random.default_rng(0)
    for _ in range(5):
        env.step(actions.integers(0, 5, 4))
    other.restore_plain_state(through_a_file(env.plain_state()))
    for _ in range(6):
        chosen = actions.integers(0, 5, 4)
        assert same(env.step(chosen), other.step(chosen), exact=True)


def test_a_single_environment_goes_on_and_other_states_are_refused() -> None:
    env, other = (ImageRestoreEnv(images=photographs(), toolbox=pixelwise_toolbox()) for _ in range(2))
    other.restore_plain_state(through_a_file(env.plain_state()))  # nothing has begun
    env.reset(seed=1)
    env.step(np.int64(0))
    other.restore_plain_state(through_a_file(env.plain_state()))
    assert same(env.step(np.int64(1)), other.step(np.int64(1)), exact=True)
    assert same(env.reset(), other.reset(), exact=True)
    vector = ImageRestoreVectorEnv(2, images=photographs(), toolbox=pixelwise_toolbox())
    with pytest.raises(ValueError, match=r"the state has 1 slot\(s\), the batch 2"):
        vector.restore_plain_state(env.plain_state())
    pair = photographs(2, 70, 70)
    env.reset(options={"distorted": pair[0], "target": pair[1]})
    with pytest.raises(ValueError, match="the user's own"):
        env.plain_state()
