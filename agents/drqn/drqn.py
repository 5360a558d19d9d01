"""DRQN, deep recurrent Q-learning, as an algorithm of Stable-Baselines3.

Source: Hausknecht & Stone, "Deep Recurrent Q-Learning for Partially Observable MDPs", 2015 (arXiv 1507.06527); the
algorithm of RL-Restore (Yu et al., CVPR 2018). Double Q-learning: van Hasselt et al., AAAI 2016.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, RolloutReturn, Schedule
from stable_baselines3.common.utils import polyak_update
from stable_baselines3.dqn.dqn import DQN
from torch import Tensor
from torch.nn import functional as F

from agents.drqn.buffers import EpisodeReplayBuffer, Observations, ReplayedEpisodes
from agents.drqn.policies import (
    CnnLstmPolicy,
    MlpLstmPolicy,
    MultiInputLstmPolicy,
    RecurrentQNetwork,
    RecurrentQPolicy,
    greedy,
)


class DRQN(DQN):
    """Deep recurrent Q-learning for any environment with discrete actions.

    Whole episodes are replayed from their beginnings. Actions that the environment forbids by an ``action_mask`` in a
    Dict observation are neither chosen nor bootstrapped from. Episodes that a time limit truncated bootstrap from their
    last observation.

    A loaded model starts with an empty buffer (see ``save_replay_buffer``) and trains again once it has
    ``learning_starts`` transitions.

    Args:
        policy: "MlpLstmPolicy", "CnnLstmPolicy", "MultiInputLstmPolicy", or a :class:`RecurrentQPolicy`.
        env: environment, vector environment of Stable-Baselines3, or a registered name.
        buffer_size: transitions to store.
        learning_starts: transitions collected by random actions before training.
        max_grad_norm: the gradient is clipped to this norm.
        exploration_fraction: share of the training over which epsilon falls.
        exploration_final_eps: epsilon at the end.
        exploration_schedule: epsilon as a function of the progress that remains (1 to 0), in place of the linear fall.
        double_q: use double Q-learning: the Q-network chooses the action that the target network evaluates.
        arguments: other arguments of Stable-Baselines3's ``DQN``; ``batch_size`` counts episodes, ``train_freq`` steps
            of all environments, ``policy_kwargs`` are those of :class:`RecurrentQPolicy`.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpLstmPolicy": MlpLstmPolicy,
        "CnnLstmPolicy": CnnLstmPolicy,
        "MultiInputLstmPolicy": MultiInputLstmPolicy,
    }
    policy: RecurrentQPolicy
    q_net: RecurrentQNetwork  # type: ignore[assignment]
    q_net_target: RecurrentQNetwork  # type: ignore[assignment]
    replay_buffer: EpisodeReplayBuffer | None

    def __init__(
        self,
        policy: str | type[RecurrentQPolicy],
        env: GymEnv | str,
        *,
        buffer_size: int = 500_000,
        learning_starts: int = 5_000,
        max_grad_norm: float = 5.0,
        exploration_fraction: float = 0.5,
        exploration_final_eps: float = 0.1,
        exploration_schedule: Schedule | None = None,
        double_q: bool = True,
        _init_setup_model: bool = True,
        **arguments: Any,
    ) -> None:
        super().__init__(
            policy,
            env,
            buffer_size=buffer_size,
            learning_starts=learning_starts,
            max_grad_norm=max_grad_norm,
            exploration_fraction=exploration_fraction,
            exploration_final_eps=exploration_final_eps,
            replay_buffer_class=EpisodeReplayBuffer,
            _init_setup_model=False,
            **arguments,
        )
        self.double_q, self._given_schedule = double_q, exploration_schedule
        self._state: tuple[npt.NDArray[Any], ...] | None = None
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        super()._setup_model()
        self._seed_generators(self.seed)
        self.exploration_schedule = self._given_schedule or self.exploration_schedule
        self.exploration_rate = self.exploration_schedule(self._current_progress_remaining)

    def set_random_seed(self, seed: int | None = None) -> None:
        """Seed networks, environment, exploration and replay."""
        super().set_random_seed(seed)
        if seed is not None:
            self._seed_generators(seed)

    def _seed_generators(self, seed: int | None) -> None:
        self._rng, replay = np.random.default_rng(seed).spawn(2)
        if self.replay_buffer is not None:
            self.replay_buffer.rng = replay

    def predict(self, *args: Any, **kwargs: Any) -> tuple[npt.NDArray[Any], tuple[npt.NDArray[Any], ...] | None]:
        """Choose actions as :meth:`RecurrentQPolicy.predict`, with its arguments and the training's current epsilon."""
        return self.policy.predict(*args, epsilon=self.exploration_rate, rng=self._rng, **kwargs)

    def load_replay_buffer(self, *args: Any, **kwargs: Any) -> None:
        """Load the finished episodes of a saved buffer; the next ``learn`` resets the environments.

        The file is unpickled: only load files that you trust.
        """
        super().load_replay_buffer(*args, **kwargs)
        assert self.replay_buffer is not None
        self.replay_buffer.n_envs = self.n_envs
        self._last_obs = None

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[int, BaseCallback]:
        if reset_num_timesteps or self._last_obs is None:  # the environments are about to be reset
            self._state = None
            assert self.replay_buffer is not None
            self.replay_buffer.discard_unfinished()
        return super()._setup_learn(total_timesteps, callback, reset_num_timesteps, *args, **kwargs)

    def collect_rollouts(self, *args: Any, **kwargs: Any) -> RolloutReturn:
        """Collect transitions, as Stable-Baselines3 does."""
        rollout = super().collect_rollouts(*args, **kwargs)
        if not rollout.continue_training:
            self._last_obs = None  # a callback ended it before the last step was stored: start new episodes
        return rollout

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        assert self._last_obs is not None
        actions, self._state = self.policy.predict(
            self._last_obs,
            self._state,
            self._last_episode_starts,
            epsilon=1.0 if self.num_timesteps < learning_starts else self.exploration_rate,
            rng=self._rng,
        )
        return actions, actions

    def _store_transition(
        self,
        replay_buffer: ReplayBuffer,
        buffer_action: npt.NDArray[Any],
        new_obs: Observations,
        reward: npt.NDArray[Any],
        dones: npt.NDArray[Any],
        infos: list[dict[str, Any]],
    ) -> None:
        assert isinstance(replay_buffer, EpisodeReplayBuffer)
        assert self._last_obs is not None
        replay_buffer.add(self._last_obs, new_obs, buffer_action, reward, dones, infos)
        self._last_obs, self._last_episode_starts = new_obs, dones

    def _on_step(self) -> None:
        if self.num_timesteps % self.target_update_interval < self.n_envs:
            polyak_update(self.q_net.parameters(), self.q_net_target.parameters(), self.tau)
            polyak_update(self.batch_norm_stats, self.batch_norm_stats_target, 1.0)
        self.exploration_rate = self.exploration_schedule(self._current_progress_remaining)
        self.logger.record("rollout/exploration_rate", self.exploration_rate)

    def train(self, gradient_steps: int, batch_size: int = 32) -> None:
        """Update the Q-network; does nothing before ``learning_starts`` transitions."""
        buffer = self.replay_buffer
        assert buffer is not None
        if buffer.added < self.learning_starts or not len(buffer):
            return
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        losses, norms = [], []
        for _ in range(gradient_steps):
            loss = self.loss(buffer.sample(batch_size))
            self.policy.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            norm = torch.nn.utils.clip_grad_norm_(self.q_net.parameters(), self.max_grad_norm)
            self.policy.optimizer.step()
            losses.append(loss.item())
            norms.append(norm.item())
        self._n_updates += gradient_steps
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/loss", np.mean(losses))
        self.logger.record("train/grad_norm", np.mean(norms))

    def loss(self, batch: ReplayedEpisodes) -> Tensor:
        """The Huber loss of the values of the actions that were taken, averaged over the steps."""
        values = self.q_net.along_episodes(batch.observations, batch.observed)
        taken = values[:, :-1].gather(2, batch.actions[..., None])[..., 0]
        with torch.no_grad():
            target_values = self.q_net_target.along_episodes(batch.observations, batch.observed)
            chooser = values.detach() if self.double_q else target_values
            targets = bellman_targets(batch, chooser, target_values, self.gamma)
        losses = F.smooth_l1_loss(taken, targets, reduction="none") * batch.taken
        return losses.sum() / batch.taken.sum()

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_state", "_rng"]


def bellman_targets(batch: ReplayedEpisodes, chooser: Tensor, target_values: Tensor, gamma: float) -> Tensor:
    """One-step targets ``(N, L)``: the reward, and the discounted value of the best allowed action that follows.

    Args:
        batch: episodes.
        chooser: ``(N, L + 1, A)`` values by which the following action is chosen: of the target network, or of the
            Q-network (double Q-learning, van Hasselt et al. 2016, eq. 4).
        target_values: ``(N, L + 1, A)`` by the target network.
        gamma: discount.
    """
    best = greedy(chooser[:, 1:], batch.action_masks[:, 1:])
    following = target_values[:, 1:].gather(2, best[..., None])[..., 0]
    return batch.rewards + gamma * following.masked_fill(batch.terminated, 0.0)
