"""Train RecurrentPPO with action masks on the environment, by Stable-Baselines3 alone, and evaluate it.

Run from the checkout: ``python -m examples.train_sb3 --steps 20000``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sb3_contrib import RecurrentPPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecMonitor

from agents.ppo.policies import MaskedRecurrentPolicy
from agents.sb3_env import RestoreVecEnv


def main(arguments: list[str] | None = None) -> float:
    """Train, save, evaluate; return the mean gain in dB."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--envs", type=int, default=16)
    parser.add_argument("--rollout", type=int, default=18, help="steps of each environment between updates")
    parser.add_argument("--episodes", type=int, default=50, help="for the evaluation")
    parser.add_argument("--images", help="folder of photographs (default: those of scikit-image)")
    parser.add_argument("--out", type=Path, default=Path("runs/train_sb3.zip"))
    options = parser.parse_args(arguments)

    env = VecMonitor(RestoreVecEnv(options.envs, images=options.images, severity="moderate", upscale=(1,)))
    model = RecurrentPPO(
        MaskedRecurrentPolicy,
        env,
        n_steps=options.rollout,
        batch_size=options.envs * options.rollout,
        n_epochs=3,
        learning_rate=5e-4,
        seed=0,
        verbose=1,
    )
    model.learn(options.steps)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    model.save(options.out)
    mean, deviation = evaluate_policy(model, env, n_eval_episodes=options.episodes)
    print(f"gain {mean:+.2f} dB (standard deviation {deviation:.2f}); saved as {options.out}")
    env.close()
    return float(mean)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
