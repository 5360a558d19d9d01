from __future__ import annotations

import dataclasses
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.utils.env_checker import data_equivalence as same
from stable_baselines3.common.env_checker import check_env as check_sb3

import restore_env
from restore_env import ImageRestoreEnv, ImageRestoreVectorEnv, Task
from restore_env.episodes.batch import EpisodeBatch
from restore_env.metrics import psnr
from restore_env.resolve import task_factors
from restore_env.toolbox import BICUBIC_X4, bicubic_upscale
from tests.support.toolkit import (
    double_pixels,
    photographs,
    pixelwise_toolbox,
    pixelwise_tools,
    random_toolbox,
    softened,
)
from tools_zoo import TOOLS

LISTED_WARNINGS = [
    # float32 images are exact and so unbounded; both checkers mention what follows from that
    r".*A Box observation space m(in|ax)imum value is -?infinity.*",
    r"It seems that your observation .*is an image.*",
    r".*`check_env\(\.\.\., skip_render_check\)`.*",
]


def make(**arguments: Any) -> ImageRestoreEnv:
    defaults: dict[str, Any] = {"images": photographs(), "toolbox": pixelwise_toolbox(), "patch_size": 48}
    return ImageRestoreEnv(**{**defaults, **arguments})


def negative_l1(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return -(images - targets).abs().mean((1, 2, 3))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("upscale", [(1,), (4,), (1, 4)])
@pytest.mark.parametrize("reward", ["psnr", "ssim", negative_l1])
def test_both_checkers_pass(reward: Any, upscale: tuple[int, ...], dtype: str) -> None:
    arguments = {
        "reward": reward,
        "upscale": upscale,
        "dtype": dtype,
        "toolbox": pixelwise_toolbox(super_resolver=True),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for message in LISTED_WARNINGS if dtype == "float32" else LISTED_WARNINGS[-1:]:
            warnings.filterwarnings("ignore", message=message)
        check_env(make(**arguments), skip_render_check=True)
        check_sb3(make(**arguments))


def test_gym_makes_both_environments() -> None:
    vector = gym.make_vec("ImageRestore-v0", num_envs=2, images=photographs(), toolbox=pixelwise_toolbox())
    assert isinstance(vector.unwrapped, ImageRestoreVectorEnv)
    env = gym.make("ImageRestore-v0", images=photographs(), toolbox=pixelwise_toolbox())
    assert isinstance(env.unwrapped, ImageRestoreEnv)
    assert env.spec is not None
    assert env.spec.max_episode_steps is None
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)


def test_a_seed_gives_an_episode_and_its_episode_seed_repeats_it() -> None:
    env = make()
    first = env.reset(seed=5)
    assert same(first, env.reset(seed=5))
    other = env.reset(seed=6)
    assert not same(first, other)
    env.reset()
    assert same(other, env.reset(options={"episode_seed": other[1]["episode_seed"]}))
    for wrong in (-1, 1.5, "one"):
        with pytest.raises(ValueError, match="episode_seed must be a whole number of 0 or more"):
            env.reset(options={"episode_seed": wrong})


def test_import_is_light() -> None:
    code = (
        "import sys, restore_env;"
        "heavy = {'albumentations', 'stable_baselines3', 'sb3_contrib', 'skimage', 'matplotlib'};"
        "heavy |= {'tools_zoo', 'sr_models', 'agents'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("cost_weight", [0, 1e6])
def test_rewards_sum_to_the_gain_minus_the_price(cost_weight: float) -> None:
    env = make(max_steps=3, cost_weight=cost_weight)
    _, info = env.reset(seed=1)
    rewards = []
    for action in (0, 2, 1):
        _, reward, terminated, truncated, info = env.step(np.int64(action))
        rewards.append(reward)
    assert terminated
    assert truncated is False
    assert info["psnr"] - info["initial_psnr"] == pytest.approx(sum(rewards) + cost_weight * info["gmacs"], abs=1e-9)
    assert info["toolchain"].tolist() == [0, 2, 1]
    assert env.describe()["tools"] == ("brighten", "invert", "dim")
    assert info["gmacs"] == pytest.approx(48 * 48 * (3 + 6 + 3) / 1e9)


def test_psnr_is_that_of_the_working_image_against_the_target() -> None:
    target = photographs(1, 80, 90)[0]
    distorted = np.clip(target.astype(int) + 10, 0, 255).astype(np.uint8)
    env = make()
    env.reset(options={"distorted": distorted, "target": target})
    _, _, _, _, info = env.step(np.int64(1))

    def nchw(image: Any) -> torch.Tensor:
        return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255

    assert info["psnr"] == pytest.approx(float(psnr(nchw(distorted) * 0.9, nchw(target))), abs=1e-5)


def test_stop_has_no_reward_and_ends_the_episode() -> None:
    env = make()
    env.reset(seed=2)
    _, reward, terminated, _, info = env.step(np.int64(env.toolbox.stop))
    assert (reward, terminated, env.describe()["tools"], info["gmacs"]) == (0.0, True, ("stop",), 0.0)
    with pytest.raises(gym.error.ResetNeeded, match="reset"):
        env.step(np.int64(0))
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"0\.\.3"):
        env.step(np.int64(4))


def test_stop_if_worse() -> None:
    for stop_if_worse in (False, True):
        env = make(stop_if_worse=stop_if_worse)
        env.reset(seed=3)
        _, reward, terminated, _, _ = env.step(np.int64(2))  # inverting is worse
        assert reward < 0
        assert terminated is stop_if_worse


def test_the_working_image_is_not_clipped_between_tools() -> None:
    env = make(dtype="float32")
    white = np.full((48, 48, 3), 255, np.uint8)
    env.reset(options={"distorted": white, "target": white})
    observation, *_ = env.step(np.int64(0))
    assert observation["image"].max() == pytest.approx(1.1)
    observation, *_ = env.step(np.int64(1))
    assert observation["image"].max() == pytest.approx(0.99)


def test_a_float_pair_is_observed_to_the_last_bit() -> None:
    distorted = np.random.default_rng(0).random((48, 48, 3), dtype=np.float32)
    env = make(dtype="float32")
    observation, _ = env.reset(options={"distorted": distorted, "target": distorted})
    assert np.array_equal(observation["image"], distorted)


class TestLowResolution:
    def make(self, **arguments: Any) -> ImageRestoreEnv:
        return make(upscale=(4,), toolbox=random_toolbox(super_resolver=True), **arguments)

    def test_bicubic_counts_as_the_starting_point(self) -> None:
        env = self.make()
        _, info = env.reset(seed=0)
        assert info["upscale"] == 4
        _, reward, _, _, _ = env.step(np.int64(12))
        assert reward == pytest.approx(0, abs=1e-4)  # plain bicubic is what it was compared with already

    def test_a_second_super_resolver_is_masked_and_has_no_effect(self) -> None:
        env = self.make(cost_weight=1.0)
        observation, _ = env.reset(seed=1)
        assert observation["action_mask"].tolist() == [1] * 14
        after_first, *_, info = env.step(np.int64(12))
        assert after_first["action_mask"].tolist() == [1] * 12 + [0, 1]
        again, reward, terminated, _, after = env.step(np.int64(12))
        assert np.array_equal(again["image"], after_first["image"])
        assert (reward, after["psnr"], after["gmacs"], terminated) == (0.0, info["psnr"], info["gmacs"], False)

    def test_the_observation_stays_a_patch_at_its_own_scale(self) -> None:
        env = make(upscale=(4,), toolbox=pixelwise_toolbox(super_resolver=True))
        before, _ = env.reset(seed=2)
        after, *_ = env.step(np.int64(3))
        assert after["image"].shape == before["image"].shape
        assert np.array_equal(after["image"][::4, ::4], before["image"][18:30, 18:30])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"severity": "awful"}, "mild, moderate, severe"),
        ({"reward": "lpips"}, "psnr, ssim, perceptual"),
        ({"reward": "nowhere:metric"}, "reward 'nowhere:metric' cannot be imported"),
        ({"distortion": "nowhere:rain"}, "distortion 'nowhere:rain' cannot be imported"),
        ({"distortion": "numpy:pi"}, r"distortion 'numpy:pi': expected an albumentations\.Compose, or .* got 3\.14"),
        ({"distortion": "albumentations:Compose"}, r"distortion 'albumentations:Compose': .*the factory failed"),
        ({"distortion": 0.5}, r"distortion: expected an albumentations\.Compose, .* got 0\.5"),
        ({"dtype": "float64"}, "uint8"),
        ({"patch_size": 0}, "patch_size"),
        ({"max_steps": 2.5}, "max_steps"),
        ({"upscale": ()}, "upscale"),
        ({"upscale": (0,)}, "upscale"),
        ({"cost_weight": -1}, "cost_weight"),
        ({"render_mode": "ascii"}, "rgb_array"),
        ({"patch_size": 400}, "smaller than a patch"),
        ({"upscale": (8,)}, "384x384"),
        ({"toolbox": "defualt"}, "defualt"),
        ({"images": []}, "empty"),
        ({"reward": lambda images, targets: (images - targets).mean()}, "one score per image"),
        ({"severty": "mild"}, "severty"),
    ],
)
def test_wrong_arguments_get_one_clear_error(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        make(**arguments).reset()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distorted": np.zeros((48, 48, 3), np.uint8)}, "both"),
        ({"seed": 1}, "unknown reset option 'seed'"),
        ({"distorted": np.zeros((20, 48, 3), np.uint8), "target": np.zeros((20, 48, 3), np.uint8)}, "smaller"),
        ({"distorted": np.zeros((48, 48, 3), np.uint8), "target": np.zeros((48, 96, 3), np.uint8)}, "fit together"),
        ({"distorted": "no/such.png", "target": "no/such.png"}, "no such file"),
    ],
)
def test_wrong_reset_options_get_one_clear_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make().reset(seed=0, options=options)


def test_pairs_are_played_without_distortion(tmp_path: Path) -> None:
    target = photographs(1)[0]
    distorted = 255 - target
    env = make(images=[(distorted, target)])
    observation, _ = env.reset(seed=0)
    top, left = (env.describe()["distortion"][side] for side in ("top", "left"))
    assert np.array_equal(observation["image"], distorted[top : top + 48, left : left + 48])
    assert env.step(np.int64(2))[1] > 0


class TestDefaults:
    """Toolbox and upscale factors where they are not given."""

    def test_same_size_and_low_resolution_with_super_resolvers(self) -> None:
        env = ImageRestoreEnv()
        assert env.action_space == gym.spaces.Discrete(15)
        assert env.toolbox.names == (*(spec.name for spec in TOOLS), "sft_gan", "sed")
        assert env.toolbox.scales.tolist() == [1] * 12 + [4, 4]
        factors = set()
        for seed in range(8):
            observation, info = env.reset(seed=seed)
            factors.add(info["upscale"])
            allowed = info["upscale"] == 4
            assert observation["action_mask"].tolist() == [1] * 12 + [allowed] * 2 + [1]
        assert factors == {1, 4}

    def test_same_size_tasks_have_the_twelve_tools(self) -> None:
        env = gym.make("ImageRestore-v0", upscale=(1,))
        assert env.action_space == gym.spaces.Discrete(13)
        assert {env.reset(seed=seed)[1]["upscale"] for seed in range(4)} == {1}

    @pytest.mark.parametrize(
        ("tools", "upscale"),
        [
            (pixelwise_toolbox(), (1,)),
            (pixelwise_toolbox(super_resolver=True), (1, 4)),
            ([BICUBIC_X4], (4,)),
            ([*pixelwise_tools(), dataclasses.replace(BICUBIC_X4, scale=2)], (1, 2)),
            ("tests.support.toolkit:pixelwise_toolbox", (1,)),
            (lambda: pixelwise_toolbox(super_resolver=True), (1, 4)),
            ("tools_zoo:default_toolbox", (1,)),
        ],
    )
    def test_own_tools_decide_the_upscale_factors(self, tools: Any, upscale: tuple[int, ...]) -> None:
        task = Task(toolbox=tools)
        assert task_factors(task) == upscale
        assert EpisodeBatch(task, 1).toolbox is EpisodeBatch(task, 2).toolbox
        assert task_factors(Task(toolbox=tools, upscale=(1, 4))) == (1, 4)

    def test_too_small_images_for_low_resolution_get_an_error_with_the_remedy(self) -> None:
        small = photographs(2, 100, 120)
        with pytest.raises(
            restore_env.ImageError, match=r"no image is as large as a patch of 252x252 .*upscale=\(1,\)"
        ) as caught:
            ImageRestoreEnv(images=small)
        assert "\n" not in str(caught.value)
        ImageRestoreEnv(images=small, upscale=(1,)).reset(seed=0)


def test_a_perceptual_reward_is_the_distance_before_minus_the_distance_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("restore_env.resolve.IMPORTED_METRICS", {"perceptual": "tests.support.toolkit:softened"})
    env = make(upscale=(4,), toolbox=pixelwise_toolbox(super_resolver=True), reward="perceptual", dtype="float32")
    observation, _ = env.reset(seed=3)
    target = env.episodes.dynamics.images(0)[1]

    def distance(image: Any) -> float:
        nchw = image if isinstance(image, torch.Tensor) else torch.from_numpy(image).permute(2, 0, 1)[None]
        return -float(softened(nchw, target[None]))

    small = torch.from_numpy(observation["image"]).permute(2, 0, 1)[None]
    distances = [
        distance(bicubic_upscale(small, 4)),
        distance(bicubic_upscale(small * 0.9, 4)),  # bicubic until a super-resolver has run
        distance(double_pixels(small * 0.9)),
        distance(1 - double_pixels(small * 0.9)),
    ]
    rewards = [env.step(np.int64(action))[1] for action in (1, 3, 2)]
    np.testing.assert_allclose(rewards, -np.diff(distances), atol=1e-6)
