"""Tools and rewards that fail: an error that says where, and an environment that is as before the step."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import data_equivalence as same
from gymnasium.vector import AutoresetMode

from restore_env import FunctionTool, ImageRestoreEnv, ImageRestoreError, ImageRestoreVectorEnv
from restore_env.toolbox import ToolError
from tests.support.toolkit import photographs, pixelwise_tools

FAILURES: dict[str, tuple[Callable[[torch.Tensor], Any], str]] = {
    "NaN": (lambda images: torch.full_like(images, torch.nan), "NaN or infinite"),
    "infinity": (lambda images: images / 0, "NaN or infinite"),
    "uint8": (lambda images: images.to(torch.uint8), "torch.uint8"),
    "NumPy": (lambda images: images.numpy(), "ndarray"),
    "nothing": (lambda _: None, "NoneType"),
    "shape": (lambda images: images[..., 1:], "shape"),
    "device": (lambda images: images.to("meta"), "meta"),
    "error": (lambda images: images[:, 7], "IndexError"),
    "own error": (lambda _: refuse(), "failed: photo.png: damaged"),
}


def refuse() -> None:
    raise ImageRestoreError("photo.png: damaged")


class Failing:
    """Works until it is told to fail."""

    def __init__(self, way: str) -> None:
        self.way, self.fails = FAILURES[way][0], False

    def __call__(self, images: torch.Tensor) -> Any:
        return self.way(images) if self.fails else images * 0.95


class FailingReward(Failing):
    def __call__(self, images: torch.Tensor, targets: torch.Tensor) -> Any:  # type: ignore[override]
        error = -(images - targets).abs().mean((1, 2, 3))
        return self.way(error[:, None])[:, 0] if self.fails else error


def small(**arguments: Any) -> dict[str, Any]:
    return {"images": photographs(2), "patch_size": 40, **arguments}


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("way", FAILURES)
def test_a_failed_step_did_not_happen(way: str, mode: AutoresetMode) -> None:
    failing = Failing(way)
    tools = [*pixelwise_tools(), FunctionTool("odd", failing)]
    env = ImageRestoreVectorEnv(4, **small(toolbox=tools, max_steps=2), autoreset_mode=mode)
    first = env.reset(seed=3)
    if mode is not AutoresetMode.DISABLED:
        env.step(np.array([0, 4, 2, 1]))  # slot 1 ends
    twin = copy.deepcopy(env)
    failing.fails = True
    actions = np.array([0, 1, 3, 2])
    for _ in range(2):
        with pytest.raises(ToolError, match=rf"\Aslot 2: tool 'odd' .*{FAILURES[way][1]}.*\Z"):
            env.step(actions)
    failing.fails = False
    assert first is not None
    for _ in range(3):
        result = env.step(actions)
        assert same(result, twin.step(actions), exact=True)
        if mode is AutoresetMode.DISABLED and result[2].any():
            options = {"reset_mask": result[2]}
            assert same(env.reset(options=options), twin.reset(options=options), exact=True)


def test_a_single_environment_goes_on_after_a_failed_step() -> None:
    failing = Failing("NaN")
    env = ImageRestoreEnv(**small(toolbox=[FunctionTool("odd", failing)]))
    env.reset(seed=0)
    env.step(np.int64(0))
    twin = copy.deepcopy(env)
    failing.fails = True
    with pytest.raises(ToolError, match=r"\Aslot 0: tool 'odd' returned NaN"):
        env.step(np.int64(0))
    failing.fails = False
    assert same(env.step(np.int64(0)), twin.step(np.int64(0)), exact=True)


@pytest.mark.parametrize("way", ["NaN", "NumPy", "nothing", "shape", "error", "own error"])
def test_a_reward_that_fails_is_named_with_its_slot(way: str) -> None:
    failing = FailingReward(way)
    env = ImageRestoreVectorEnv(3, **small(toolbox=pixelwise_tools(), reward=failing))
    env.reset(seed=0)
    twin = copy.deepcopy(env)
    failing.fails = True
    if way == "NumPy":  # scores need not be tensors
        env.step(np.array([0, 3, 1]))
        return
    with pytest.raises(ToolError, match=r"\Aslot [02]: the reward .*FailingReward"):
        env.step(np.array([0, 3, 1]))
    with pytest.raises(ToolError, match="the reward"):
        env.reset(seed=1)
    failing.fails = False
    env.reset(seed=0)
    assert same(env.step(np.array([0, 3, 1])), twin.step(np.array([0, 3, 1])), exact=True)


def test_a_failure_of_the_next_start_undoes_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    tools = [FunctionTool("black", torch.zeros_like), *pixelwise_tools()]
    arguments = small(toolbox=tools, stop_if_worse=True, max_steps=4)
    env = ImageRestoreVectorEnv(3, **arguments, autoreset_mode=AutoresetMode.SAME_STEP)
    env.reset(seed=0)
    twin, actions = copy.deepcopy(env), np.array([0, 1, 1])

    def fail(_: object) -> None:
        raise ToolError("the reward failed")

    with monkeypatch.context() as patched:
        patched.setattr(env, "_prepare", fail)
        with pytest.raises(ToolError, match="the reward failed"):
            env.step(actions)
    for _ in range(2):
        result = env.step(actions)
        assert result[2][0]
        assert same(result, twin.step(actions), exact=True)
