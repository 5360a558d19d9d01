"""An own tool (OpenCV's bilateral filter) and an own distortion (motion blur and noise) in the environment.

Run from the checkout: ``python -m examples.own_tool_and_distortion``.
"""

from __future__ import annotations

import argparse

import albumentations as A
import cv2
import gymnasium as gym
import numpy as np
import torch

import restore_env  # noqa: F401  registers the environment
from restore_env import FunctionTool
from tools_zoo import load_toolbox


def bilateral(images: torch.Tensor) -> torch.Tensor:
    """Smooth ``(N, 3, H, W)`` float32 RGB in [0, 1] but for its edges."""
    pixels = images.permute(0, 2, 3, 1).cpu().numpy()
    smoothed = np.stack([cv2.bilateralFilter(np.ascontiguousarray(image), 5, 0.1, 3) for image in pixels])
    return torch.from_numpy(smoothed).permute(0, 3, 1, 2)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Try every tool as the first one; return each one's mean gain in dB."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--images", help="folder of photographs (default: those of scikit-image)")
    options = parser.parse_args(arguments)

    distortion = A.Compose([A.MotionBlur(blur_limit=(5, 9), p=1.0), A.GaussNoise(std_range=(0.03, 0.08), p=1.0)])
    mine = FunctionTool("bilateral", bilateral, macs_per_pixel=3 * 5**2, receptive_radius=2, thread_safe=True)
    tools = [*load_toolbox("default").tools, mine]
    env = gym.make("ImageRestore-v0", images=options.images, distortion=distortion, toolbox=tools, max_steps=1)

    gains = {}
    for action, tool in enumerate(tools):
        rewards = []
        for episode in range(options.episodes):
            env.reset(seed=0, options={"episode_seed": episode})
            rewards.append(float(env.step(action)[1]))
        gains[tool.name] = float(np.mean(rewards))
    for name, gain in sorted(gains.items(), key=lambda entry: -entry[1]):
        print(f"{name:12} {gain:+.2f} dB")
    return gains


if __name__ == "__main__":
    main()
