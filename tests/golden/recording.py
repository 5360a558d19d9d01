"""Seeded rollouts and restorations as plain numbers; ``python -m tests.golden.recording`` writes them anew."""

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import restore_env  # noqa: F401 - registers the environment
from agents import Restorer
from restore_env import Toolbox
from restore_env.images.decoding import read_image
from restore_env.images.sources import embedded_paths
from sr_models import with_super_resolvers
from tools_zoo import load_toolbox

EXPECTED = Path(__file__).with_name("expected.json")
TOOLBOXES = ("default", "classic", "pure")
UPSCALES = (1, 4)
CROP = 130
"""Pixels of the restored crops: nine tiles each."""
RESTORED = (
    ("default", None, 1),
    ("default", "default", 1),
    ("classic", None, 1),
    ("pure", None, 1),
    ("default", None, 4),
)
"""Toolbox, policy (None: the toolbox's own) and scale."""


def toolbox_of(name: str, upscale: int) -> Toolbox:
    """The shipped toolbox of that name, with the super-resolvers where images are upscaled."""
    toolbox = load_toolbox(name)
    return with_super_resolvers(toolbox) if upscale > 1 else toolbox


def single_rollout(name: str, upscale: int) -> list[Any]:
    """Two episodes of the single environment with random allowed actions."""
    env = gym.make("ImageRestore-v0", toolbox=toolbox_of(name, upscale), upscale=(upscale,), severity="any").unwrapped
    rng, steps = np.random.default_rng(5), []
    for episode in range(2):
        observation, info = env.reset(seed=100 + episode)
        steps.append([info["psnr"], float(observation["image"].mean())])
        over = False
        while not over:
            action = int(rng.choice(np.flatnonzero(observation["action_mask"])))
            observation, reward, over, _, info = env.step(np.int64(action))
            steps.append([action, float(reward), over, info["psnr"], info["gmacs"], float(observation["image"].mean())])
    return steps


def vector_rollout(name: str, upscale: int) -> list[Any]:
    """Five steps of three environments that end where the image has become worse, rewarded by SSIM."""
    envs = gym.make_vec(
        "ImageRestore-v0",
        num_envs=3,
        toolbox=toolbox_of(name, upscale),
        upscale=(upscale,),
        autoreset_mode="SameStep",
        stop_if_worse=True,
        reward="ssim",
        cost_weight=0.1,
    )
    rng, steps = np.random.default_rng(6), []
    observations, _ = envs.reset(seed=7)
    for _ in range(5):
        actions = np.array([rng.choice(np.flatnonzero(mask)) for mask in observations["action_mask"]])
        observations, rewards, terminated, _, infos = envs.step(actions)
        steps.append([actions.tolist(), rewards.tolist(), terminated.tolist(), infos["psnr"].tolist()])
    return steps


def restoration(number: int, toolbox: str, policy: str | None, scale: int) -> list[Any]:
    """A noisy crop of one of scikit-image's photographs: its toolchain, cost, and mean value afterwards."""
    photo = read_image(embedded_paths()[number]).pixels
    top, left = (side // 3 for side in photo.shape[:2])
    crop = photo[top : top + CROP, left : left + CROP].astype(np.float64)
    noisy = crop + np.random.default_rng(number).normal(0, 12 + 5 * number, crop.shape)
    pixels = np.clip(noisy, 0, 255).round().astype(np.uint8)[:: scale if scale > 1 else 1, :: scale if scale > 1 else 1]
    result = Restorer(toolbox, policy, scale=scale).restore(pixels)
    return [list(result.toolchain), result.gmacs, float(result.image.mean()), float(result.image.std())]


def record() -> dict[str, Any]:
    """All of it, by name."""
    found: dict[str, Any] = {}
    for name in TOOLBOXES:
        for upscale in UPSCALES:
            found[f"single/{name}/{upscale}"] = single_rollout(name, upscale)
            found[f"vector/{name}/{upscale}"] = vector_rollout(name, upscale)
    for number in range(5):
        for toolbox, policy, scale in RESTORED:
            found[f"restore/{number}/{toolbox}/{policy}/{scale}"] = restoration(number, toolbox, policy, scale)
    return found


if __name__ == "__main__":
    EXPECTED.write_text(json.dumps(record(), indent=1) + "\n")
