"""A Minari dataset of the best chains of a level set, with reference scores, for offline reinforcement learning.

A normalized score of 0 is the best constant chain, 1 the best chain of each level.
Run from the checkout: ``pip install -c constraints.txt -e ".[minari]"; python -m examples.minari_dataset``.
"""

from __future__ import annotations

import argparse
from typing import Any

import gymnasium as gym
import minari
import numpy as np

import restore_env  # noqa: F401  registers the environments


def play(env: gym.Env[Any, Any], episodes: int, exploration: float) -> float:
    """Play the best chain of each level, with some random actions; return the mean return in dB."""
    base: Any = env.unwrapped
    rng, returns = np.random.default_rng(0), []
    for episode in range(episodes):
        _, info = env.reset(seed=episode)
        chain = [*base.episodes.dynamics.optima.best_chain[info["level"]], base.toolbox.stop]
        over, total = False, 0.0
        while not over:
            action = chain.pop(0) if chain and rng.random() >= exploration else rng.integers(base.toolbox.stop)
            _, reward, over, _, _ = env.step(action)
            total += float(reward)
        returns.append(total)
    return float(np.mean(returns))


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Record the episodes, write the dataset, and read it again; return its scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env-id", default="ImageRestorePureTrain-v0", help="of a level set")
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--exploration", type=float, default=0.2, help="probability of a random tool")
    parser.add_argument("--dataset", default="imagerestore/pure-train-best-v0")
    options = parser.parse_args(arguments)

    recorder = minari.DataCollector(gym.make(options.env_id), record_infos=True)
    mean = play(recorder, options.episodes, options.exploration)
    base: Any = recorder.unwrapped
    optima = base.episodes.dynamics.optima
    low, high = float(optima.constant_return.mean()), float(optima.best_return.mean())
    if options.dataset in minari.list_local_datasets():
        minari.delete_dataset(options.dataset)
    recorder.create_dataset(
        options.dataset,
        eval_env=recorder.env.spec,
        algorithm_name=f"best chain of each level, {options.exploration:.0%} random",
        ref_min_score=low,
        ref_max_score=high,
    )

    dataset = minari.load_dataset(options.dataset)
    shapes = {key: values.shape for key, values in next(dataset.iterate_episodes()).infos.items()}
    print(f"{dataset.total_episodes} episodes, {dataset.total_steps} steps; infos of the first: {shapes}")
    start = dataset.recover_environment().reset(seed=0)[1]
    assert start["episode_seed"] == gym.make(options.env_id).reset(seed=0)[1]["episode_seed"]
    score = float(minari.get_normalized_score(dataset, np.array([mean]))[0])
    print(f"constant chain {low:+.2f} dB, best chains {high:+.2f} dB, this dataset {mean:+.2f} dB: score {score:.2f}")
    return {"constant": low, "best": high, "dataset": mean, "score": score}


if __name__ == "__main__":
    main()
