"""The environment in PufferLib's emulation, in turn and in processes; random actions.

PufferLib itself builds from sources that it downloads; ``pufferlib-core`` is its environment part as a wheel.
Run from the checkout: ``pip install -c constraints.txt -e ".[pufferlib]"; python -m examples.pufferlib_env``.
"""

from __future__ import annotations

import argparse
import functools
from typing import Any

import gymnasium as gym
import pufferlib.emulation
import pufferlib.vector

import restore_env  # noqa: F401  registers the environment


def make(buf: Any = None, seed: int = 0, **task: Any) -> Any:
    """One environment in PufferLib's buffers."""
    creator = functools.partial(gym.make, "restore_env:ImageRestore-v0", **task)
    return pufferlib.emulation.GymnasiumPufferEnv(env_creator=creator, buf=buf, seed=seed)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Play; return the mean reward by kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=30)
    options = parser.parse_args(arguments)

    rows = {"observation": "spectrum", "flatten": True}
    kinds: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
        "rows": (pufferlib.vector.Serial, rows, {}),
        "images": (pufferlib.vector.Serial, {}, {}),  # a dictionary becomes bytes: see pufferlib.pytorch.nativize
        "processes": (pufferlib.vector.Multiprocessing, rows, {"num_workers": 2}),
    }
    means = {}
    for name, (backend, task, workers) in kinds.items():
        envs = pufferlib.vector.make(make, num_envs=2, backend=backend, env_kwargs=task, **workers)
        observations, _ = envs.reset(seed=0)
        rewards = [envs.step(envs.action_space.sample())[1].mean() for _ in range(options.steps)]
        envs.close()
        means[name] = float(sum(rewards) / len(rewards))
        print(f"{name}: observations {observations.shape} {observations.dtype}, mean reward {means[name]:+.2f} dB")
    return means


if __name__ == "__main__":
    main()
