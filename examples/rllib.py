"""PPO with a masked recurrent module in RLlib, on several workers of this machine or, by ``--address``, of a cluster.

RLlib pins Gymnasium: ``pip install -c constraints-rllib.txt -e ".[rllib]"; python -m examples.rllib --workers 2``.
"""

from __future__ import annotations

import argparse
from typing import Any

import gymnasium as gym
import numpy as np
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.apis import ValueFunctionAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.tune.registry import register_env
from torch import Tensor, nn


class MaskedLSTM(TorchRLModule, ValueFunctionAPI):
    """A perceptron and an LSTM on the compact observation; logits of forbidden actions are very low."""

    def setup(self) -> None:
        """Make the layers."""
        size, actions = self.model_config["lstm_cell_size"], int(self.action_space.n)
        self.lstm = nn.LSTM(size, size, batch_first=True)
        self.actor, self.critic = nn.Linear(size, actions), nn.Linear(size, 1)
        spectrum, self.last = self.observation_space["spectrum"].shape[0], int(self.observation_space["last_action"].n)
        self.encoder = nn.Sequential(nn.Linear(spectrum + self.last + 1, size), nn.ReLU())

    def get_initial_state(self) -> dict[str, Any]:
        """Zeros."""
        return {key: np.zeros(self.model_config["lstm_cell_size"], np.float32) for key in ("h", "c")}

    def _forward(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        observed, state = batch[Columns.OBS], batch[Columns.STATE_IN]
        last = nn.functional.one_hot(observed["last_action"].long(), self.last)
        rows = [observed["spectrum"] / 10, last, observed["steps_left"][..., None]]
        embeddings, (h, c) = self.lstm(self.encoder(torch.cat(rows, -1)), (state["h"][None], state["c"][None]))
        logits = self.actor(embeddings).masked_fill(observed["action_mask"] == 0, -1e9)
        result = {Columns.ACTION_DIST_INPUTS: logits, Columns.EMBEDDINGS: embeddings}
        return {**result, Columns.STATE_OUT: {"h": h[0], "c": c[0]}}

    def compute_values(self, batch: dict[str, Any], embeddings: Tensor | None = None) -> Tensor:
        """Expected returns, ``(B, T)``."""
        known = self._forward(batch)[Columns.EMBEDDINGS] if embeddings is None else embeddings
        return self.critic(known)[..., 0]  # type: ignore[no-any-return]


def main(arguments: list[str] | None = None) -> float:
    """Train; return the mean return of the last iteration, dB."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("iterations", 50), ("workers", 2), ("batch-size", 1536)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--levels", default="pure-train", help="a level set, as a folder that all workers see")
    parser.add_argument("--address", help='of a cluster, "auto" on its head')
    options = parser.parse_args(arguments)

    ray.init(address=options.address, **({} if options.address else {"num_cpus": options.workers + 1}))
    register_env("ImageRestore", lambda config: gym.make_vec("restore_env:ImageRestorePureTrain-v0", **config))
    model = RLModuleSpec(module_class=MaskedLSTM, model_config={"lstm_cell_size": 64, "max_seq_len": 2})
    config = PPOConfig().environment("ImageRestore", env_config={"flatten": False, "levels": options.levels})
    config.env_runners(num_env_runners=options.workers, num_envs_per_env_runner=32)
    config.env_runners(gym_env_vectorize_mode="vector_entry_point").rl_module(rl_module_spec=model)
    batches = {"train_batch_size": options.batch_size, "minibatch_size": options.batch_size // 3, "num_epochs": 3}
    config.training(**batches, lr=5e-4, gamma=1.0, vf_loss_coeff=0.25)
    algorithm, result = config.build_algo(), float("nan")
    for _ in range(options.iterations):
        result = float(algorithm.train()["env_runners"]["episode_return_mean"])
        print(f"return {result:+.2f} dB")
    ray.shutdown()
    return result


if __name__ == "__main__":
    main()
