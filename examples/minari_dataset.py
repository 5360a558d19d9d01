"""A Minari dataset of the greedy oracle's episodes, with reference scores, for offline reinforcement learning.

The oracle sees the target; its episodes are demonstrations. A score of 0 is a constant chain, 1 the oracle.
Run from the checkout: ``pip install -c constraints.txt -e ".[minari]"; python -m examples.minari_dataset``.
"""

from __future__ import annotations

import argparse
from typing import Any

import gymnasium as gym
import minari
import numpy as np

import restore_env  # noqa: F401  registers the environment
from agents.policies.heuristics import FixedChain
from agents.policies.oracles import GreedyOracle
from tools_zoo import load_toolbox


def play(env: gym.Env[Any, Any], policy: Any, episodes: int) -> list[float]:
    """Play the same episodes by a policy; return their returns in dB."""
    returns = []
    for episode in range(episodes):
        observation, _ = env.reset(seed=episode)
        state, over, total = None, False, 0.0
        while not over:
            action, state = policy.predict(observation, state)
            observation, reward, over, _, _ = env.step(action)
            total += float(reward)
        returns.append(total)
    return returns


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Record the episodes, write the dataset, and read it again; return the reference scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--severity", default="moderate")
    parser.add_argument("--dataset", default="imagerestore/greedy-v0")
    options = parser.parse_args(arguments)

    env = gym.make("ImageRestore-v0", severity=options.severity, upscale=(1,))
    names = load_toolbox("default").names
    constant = FixedChain([names.index("denoise_4"), names.index("deblur_3")], stop=len(names))
    low = float(np.mean(play(env, constant, options.episodes)))
    recorder = minari.DataCollector(env, record_infos=True)
    high = float(np.mean(play(recorder, GreedyOracle.of(recorder), options.episodes)))
    if options.dataset in minari.list_local_datasets():
        minari.delete_dataset(options.dataset)
    dataset = recorder.create_dataset(
        options.dataset, eval_env=env.spec, algorithm_name="greedy oracle", ref_min_score=low, ref_max_score=high
    )

    again = minari.load_dataset(options.dataset)
    shapes = {key: values.shape for key, values in next(again.iterate_episodes()).infos.items()}
    print(f"{again.total_episodes} episodes, {again.total_steps} steps; infos of the first: {shapes}")
    start = again.recover_environment().reset(seed=0)[1]
    assert start["episode_seed"] == env.reset(seed=0)[1]["episode_seed"]
    scores = minari.get_normalized_score(dataset, np.array([low, high]))
    print(f"constant chain {low:+.2f} dB, oracle {high:+.2f} dB, normalized {scores}")
    return {"constant": low, "oracle": high}


if __name__ == "__main__":
    main()
