"""Compare the shipped agent with one network, DnCNN-s, and with a constant chain on the same patches.

Run from the checkout: ``python -m examples.compare_with_baseline --patches 100``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import gymnasium as gym
import numpy as np

import restore_env  # noqa: F401  registers the environment
from agents import load_policy
from benchmarks.baselines.weights import as_tool, read_baseline
from tools_zoo import load_toolbox

WEIGHTS = Path(__file__).parents[1] / "benchmarks" / "weights" / "dncnn_s.safetensors"


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Restore every patch by each method; return the methods' mean PSNR in dB."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patches", type=int, default=100)
    parser.add_argument("--images", help="folder of photographs (default: those of scikit-image)")
    parser.add_argument("--severity", default="moderate")
    options = parser.parse_args(arguments)

    task = {"images": options.images, "severity": options.severity, "upscale": (1,)}
    env = gym.make("ImageRestore-v0", **task)
    network = gym.make("ImageRestore-v0", toolbox=[as_tool(read_baseline(WEIGHTS))], **task)
    names = load_toolbox("default").names
    policy = load_policy("default", tools=names)
    chain = [names.index("denoise_4"), names.index("deblur_3"), len(names)]

    scores: dict[str, list[float]] = {"input": [], "agent": [], "constant chain": [], "DnCNN-s": []}
    for patch in range(options.patches):
        observation, info = env.reset(options={"episode_seed": patch})
        scores["input"].append(info["psnr"])
        state, over = None, False
        while not over:
            actions, state = policy.predict({key: np.asarray(value)[None] for key, value in observation.items()}, state)
            observation, _, over, _, info = env.step(actions[0])
        scores["agent"].append(info["psnr"])
        for name, other, steps in (("constant chain", env, chain), ("DnCNN-s", network, [0])):
            other.reset(options={"episode_seed": patch})
            scores[name].append([other.step(action)[4]["psnr"] for action in steps][-1])
    means = {name: float(np.mean(values)) for name, values in scores.items()}
    for name, mean in means.items():
        print(f"{name:15} {mean:.2f} dB")
    return means


if __name__ == "__main__":
    main()
