"""Random actions in ``ImageRestore-v0``, and what they gain.

Run from the checkout: ``python -m examples.random_agent --episodes 20``.
"""

from __future__ import annotations

import argparse

import gymnasium as gym

import restore_env  # noqa: F401  registers the environment


def main(arguments: list[str] | None = None) -> float:
    """Run the episodes, print each chain, and return the mean gain in dB."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--images", help="folder of photographs (default: those of scikit-image)")
    parser.add_argument("--severity", default="moderate")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)

    env = gym.make("ImageRestore-v0", images=options.images, severity=options.severity, upscale=(1,))
    env.action_space.seed(options.seed)
    gains = []
    for episode in range(options.episodes):
        observation, info = env.reset(seed=options.seed + episode)
        terminated = False
        while not terminated:
            action = env.action_space.sample(observation["action_mask"])
            observation, _, terminated, _, info = env.step(action)
        gains.append(info["psnr"] - info["initial_psnr"])
        print(f"{gains[-1]:+6.2f} dB  {' -> '.join(env.get_wrapper_attr('describe')()['tools'])}")
    mean = sum(gains) / len(gains)
    print(f"mean {mean:+.2f} dB")
    return float(mean)


if __name__ == "__main__":
    main()
