from __future__ import annotations

import re
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import data_equivalence as same
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from restore_env import ImageRestoreEnv, ImageRestoreVectorEnv
from restore_env.toolbox import FunctionTool, Toolbox
from tests.support.toolkit import photographs, pixelwise_toolbox, random_toolbox

N = 5


def both(mode: AutoresetMode, **arguments: Any) -> tuple[ImageRestoreVectorEnv, SyncVectorEnv]:
    arguments = {"images": photographs(), "patch_size": 40, **arguments}
    native = ImageRestoreVectorEnv(N, autoreset_mode=mode, **arguments)
    reference = SyncVectorEnv([lambda: ImageRestoreEnv(**arguments)] * N, autoreset_mode=mode)
    return native, reference


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_equal_to_the_synchronous_vector_env_bit_for_bit(mode: AutoresetMode, dtype: str) -> None:
    toolbox = pixelwise_toolbox(super_resolver=True)
    native, reference = both(
        mode, toolbox=toolbox, upscale=(1, 4), dtype=dtype, stop_if_worse=True, saturation_prob=0.5
    )
    assert native.metadata["autoreset_mode"] is mode
    assert ImageRestoreVectorEnv.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert native.observation_space == reference.observation_space
    assert native.action_space == reference.action_space
    assert same(native.reset(seed=11), reference.reset(seed=11))
    rng = np.random.default_rng(0)
    for _ in range(25):
        actions = rng.integers(0, len(toolbox) + 1, N)
        assert same(native.step(actions), reference.step(actions))
    assert same(native.reset(seed=[4, 3, 2, 1, 0]), reference.reset(seed=[4, 3, 2, 1, 0]))
    assert same(native.reset(), reference.reset())


def test_a_metric_may_reuse_its_result() -> None:
    kept = torch.zeros(N, dtype=torch.float64)

    def in_one_tensor(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        scores = kept[: len(images)]
        return scores.copy_(-(images - targets).abs().mean((1, 2, 3)))

    rewards = []
    for metric in (in_one_tensor, lambda images, targets: in_one_tensor(images, targets).clone()):
        env = ImageRestoreVectorEnv(N, photographs(), patch_size=40, toolbox=pixelwise_toolbox(), reward=metric)
        env.reset(seed=0)
        rewards.append(env.step(np.array([0, 1, 2, 0, 3]))[1])  # three tools, three results
    assert np.abs(rewards[0]).max() > 1e-3
    assert np.array_equal(rewards[0], rewards[1])


def test_equal_with_resets_by_mask() -> None:
    native, reference = both(AutoresetMode.DISABLED, toolbox=pixelwise_toolbox())
    with pytest.raises(gym.error.ResetNeeded):
        native.step(np.zeros(N, dtype=np.int64))
    assert same(native.reset(seed=1), reference.reset(seed=1))
    rng = np.random.default_rng(1)
    for _ in range(12):
        actions = rng.integers(0, 4, N)
        ours, theirs = native.step(actions), reference.step(actions)
        assert same(ours, theirs)
        over = ours[2]
        if over.any():
            with pytest.raises(gym.error.ResetNeeded, match=re.escape(str(np.flatnonzero(over).tolist()))):
                native.step(actions)
            assert same(
                native.reset(options={"reset_mask": over.copy()}), reference.reset(options={"reset_mask": over.copy()})
            )


def test_equal_bit_for_bit_with_the_networks() -> None:
    toolbox = random_toolbox(super_resolver=True)
    native, reference = both(AutoresetMode.NEXT_STEP, toolbox=toolbox, upscale=(1, 4), dtype="float32")
    native.reset(seed=2)
    reference.reset(seed=2)
    rng = np.random.default_rng(2)
    for _ in range(6):
        actions = rng.integers(0, len(toolbox) + 1, N)
        assert same(native.step(actions), reference.step(actions), exact=True)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_the_observation_is_the_centre_of_the_current_working_image(mode: AutoresetMode) -> None:
    toolbox = pixelwise_toolbox(super_resolver=True)
    env = ImageRestoreVectorEnv(
        N, photographs(), patch_size=40, toolbox=toolbox, upscale=(1, 4), autoreset_mode=mode, max_steps=2
    )
    rng = np.random.default_rng(3)
    seen, _ = env.reset(seed=3)
    for _ in range(15):
        for slot in range(N):
            image = env.episodes.working_image(slot)
            first = (len(image) - 40) // 2
            assert np.array_equal(seen["image"][slot], image[first : first + 40, first : first + 40])
        seen, _, over, _, _ = env.step(rng.integers(0, 5, N))
        if mode is AutoresetMode.DISABLED and over.any():
            seen, _ = env.reset(options={"reset_mask": over})


def test_a_tool_whose_output_has_a_gradient_can_be_observed_as_float32() -> None:
    weight = torch.nn.Parameter(torch.tensor(0.5))

    def learning(images: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            return images.clone() * weight

    toolbox = Toolbox([FunctionTool("learning", learning)])
    env = ImageRestoreVectorEnv(2, photographs(), patch_size=40, toolbox=toolbox, dtype="float32")
    before, _ = env.reset(seed=0)
    seen = env.step(np.zeros(2, dtype=np.int64))[0]
    np.testing.assert_allclose(seen["image"], before["image"] / 2, atol=1e-6)


def test_calls_share_no_arrays() -> None:
    env, _ = both(AutoresetMode.SAME_STEP, toolbox=pixelwise_toolbox())
    kept = env.reset(seed=0)
    copies = [kept[0]["image"].copy(), kept[1]["psnr"].copy(), kept[0]["last_action"].copy()]
    for _ in range(4):
        env.step(np.zeros(N, dtype=np.int64))
    assert same(copies, [kept[0]["image"], kept[1]["psnr"], kept[0]["last_action"]])


def test_own_pairs_of_different_sizes() -> None:
    sizes = [(40, 40), (64, 50), (40, 40), (90, 41), (64, 50)]
    targets = [photographs(1, *size, seed=i)[0] for i, size in enumerate(sizes)]
    distorted = [255 - target for target in targets]
    env, _ = both(AutoresetMode.DISABLED, toolbox=pixelwise_toolbox())
    _, before = env.reset(options={"distorted": distorted, "target": targets})
    _, rewards, *_, infos = env.step(np.array([2, 2, 0, 2, 3]))
    np.testing.assert_allclose(infos["psnr"][[0, 1, 3]], 100, atol=1e-3)
    np.testing.assert_allclose(rewards, infos["psnr"] - before["psnr"], atol=1e-9)
    single = ImageRestoreEnv(images=photographs(), patch_size=40, toolbox=pixelwise_toolbox())
    for slot in range(N):
        single.reset(options={"distorted": distorted[slot], "target": targets[slot]})
        assert single.step(np.int64([2, 2, 0, 2, 3][slot]))[4]["psnr"] == infos["psnr"][slot]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda env: env.step(np.zeros(N - 1, dtype=np.int64)), "as many actions"),
        (lambda env: env.step(np.full(N, 9)), r"0\.\.3"),
        (lambda env: env.reset(seed=[1, 2]), "as many seeds"),
        (lambda env: env.reset(options={"reset_mask": np.zeros(N, dtype=bool)}), "reset_mask"),
        (lambda env: env.reset(options={"reset_mask": np.ones(N)}), "reset_mask"),
        (lambda env: env.reset(options={"distorted": [1, 2], "target": [1, 2]}), "needs 5 entries"),
    ],
)
def test_wrong_calls_get_one_clear_error(call: Any, message: str) -> None:
    env, _ = both(AutoresetMode.NEXT_STEP, toolbox=pixelwise_toolbox())
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        call(env)


@pytest.mark.skipif("not __import__('torch').cuda.is_available()", reason="no CUDA device")
def test_cuda_agrees_with_the_cpu() -> None:
    cpu, _ = both(AutoresetMode.NEXT_STEP, toolbox=random_toolbox())
    cuda, _ = both(AutoresetMode.NEXT_STEP, toolbox=random_toolbox(), device="cuda")
    cpu.reset(seed=0)
    cuda.reset(seed=0)
    for action in (0, 7, 3):
        ours, theirs = cuda.step(np.full(N, action)), cpu.step(np.full(N, action))
        np.testing.assert_allclose(ours[1], theirs[1], atol=1e-2)
