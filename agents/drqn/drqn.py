"""DRQN, deep recurrent Q-learning, as an algorithm of Stable-Baselines3.

Source: Hausknecht & Stone, "Deep Recurrent Q-Learning for Partially Observable MDPs", 2015 (arXiv 1507.06527); the
algorithm of RL-Restore (Yu et al., CVPR 2018). Double Q-learning: van Hasselt et al., AAAI 2016.
"""

from __future__ import annotations

import io
import pathlib
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, RolloutReturn, Schedule, TrainFreq
from stable_baselines3.common.utils import LinearSchedule, get_parameters_by_name, polyak_update
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor
from torch.nn import functional as F

from agents.drqn.buffers import ACTION_MASK, EpisodeReplayBuffer, Observations, ReplayedEpisodes
from agents.drqn.policies import CnnLstmPolicy, MlpLstmPolicy, MultiInputLstmPolicy, RecurrentQPolicy, greedy

SelfDRQN = TypeVar("SelfDRQN", bound="DRQN")


class DRQN(OffPolicyAlgorithm):
    """Deep recurrent Q-learning for any environment with discrete actions.

    Whole episodes are replayed from their beginnings. Actions that the environment forbids, by an ``action_mask`` in a
    Dict observation or by a method ``action_masks`` (sb3-contrib's convention), are neither chosen nor bootstrapped
    from. Episodes that a time limit truncated bootstrap from their last observation.

    A loaded model starts with an empty buffer (see ``save_replay_buffer``) and trains again once it has
    ``learning_starts`` transitions.

    Args:
        policy: "MlpLstmPolicy", "CnnLstmPolicy", "MultiInputLstmPolicy", or a :class:`RecurrentQPolicy`.
        env: environment, vector environment of Stable-Baselines3, or a registered name.
        learning_rate: Adam's; a number, or a function of the progress that remains (1 to 0).
        buffer_size: transitions to store.
        learning_starts: transitions collected by random actions before training.
        batch_size: episodes in a batch.
        tau: interpolation weight of target updates; 1 copies the Q-network.
        gamma: discount.
        train_freq: steps of all environments between two training phases.
        gradient_steps: updates in a training phase; -1: as many as transitions since the last one.
        double_q: use double Q-learning: the Q-network chooses the action that the target network evaluates.
        target_update_interval: transitions between two updates of the target network.
        exploration_fraction: share of the training over which epsilon falls.
        exploration_initial_eps: epsilon at the start.
        exploration_final_eps: epsilon at the end.
        exploration_schedule: epsilon as a function of the progress that remains, in place of the three numbers.
        max_grad_norm: the gradient is clipped to this norm.
        stats_window_size: episodes over which the log averages.
        tensorboard_log: folder for TensorBoard.
        policy_kwargs: for the policy, see :class:`RecurrentQPolicy`.
        verbose: 0 nothing, 1 information, 2 debugging.
        seed: of everything random.
        device: "cpu", "cuda", or "auto".
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpLstmPolicy": MlpLstmPolicy,
        "CnnLstmPolicy": CnnLstmPolicy,
        "MultiInputLstmPolicy": MultiInputLstmPolicy,
    }
    policy: RecurrentQPolicy
    replay_buffer: EpisodeReplayBuffer | None

    def __init__(
        self,
        policy: str | type[RecurrentQPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 1e-4,
        buffer_size: int = 500_000,
        learning_starts: int = 5_000,
        batch_size: int = 32,
        tau: float = 1.0,
        gamma: float = 0.99,
        train_freq: int | tuple[int, str] = 4,
        gradient_steps: int = 1,
        double_q: bool = True,
        target_update_interval: int = 10_000,
        exploration_fraction: float = 0.5,
        exploration_initial_eps: float = 1.0,
        exploration_final_eps: float = 0.1,
        exploration_schedule: Schedule | None = None,
        max_grad_norm: float = 5.0,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        super().__init__(
            policy,
            env,
            learning_rate,
            buffer_size,
            learning_starts,
            batch_size,
            tau,
            gamma,
            train_freq,
            gradient_steps,
            replay_buffer_class=EpisodeReplayBuffer,
            policy_kwargs=policy_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            seed=seed,
            sde_support=False,
            supported_action_spaces=(spaces.Discrete,),
            support_multi_env=True,
        )
        self.double_q = double_q
        self.target_update_interval = target_update_interval
        self.exploration_fraction = exploration_fraction
        self.exploration_initial_eps = exploration_initial_eps
        self.exploration_final_eps = exploration_final_eps
        self.exploration_schedule = exploration_schedule
        self.exploration_rate = exploration_initial_eps
        """The current epsilon."""
        self.max_grad_norm = max_grad_norm
        self._state: tuple[npt.NDArray[Any], ...] | None = None
        self._masks: npt.NDArray[np.bool_] | None = None
        self._ask_masks = False
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        super()._setup_model()
        self._seed_generators(self.seed)
        self._epsilon = self.exploration_schedule or LinearSchedule(
            self.exploration_initial_eps, self.exploration_final_eps, self.exploration_fraction
        )
        self.exploration_rate = self._epsilon(self._current_progress_remaining)

    @property
    def q_net(self) -> torch.nn.Module:
        """The network that is trained."""
        return self.policy.q_net

    @property
    def q_net_target(self) -> torch.nn.Module:
        """The network that gives the targets."""
        return self.policy.q_net_target

    def set_random_seed(self, seed: int | None = None) -> None:
        """Seed networks, environment, exploration and replay."""
        super().set_random_seed(seed)
        if seed is not None:
            self._seed_generators(seed)

    def _seed_generators(self, seed: int | None) -> None:
        self._rng, replay = np.random.default_rng(seed).spawn(2)
        if self.replay_buffer is not None:
            self.replay_buffer.rng = replay

    def predict(
        self,
        observation: npt.NDArray[Any] | dict[str, npt.NDArray[Any]],
        state: tuple[npt.NDArray[Any], ...] | None = None,
        episode_start: npt.NDArray[Any] | None = None,
        deterministic: bool = False,
        action_masks: npt.NDArray[Any] | None = None,
    ) -> tuple[npt.NDArray[Any], tuple[npt.NDArray[Any], ...] | None]:
        """Choose actions and return the next state.

        Args:
            observation: one, or a batch of ``N``.
            state: what the last call returned; None at the start.
            episode_start: ``(N,)``, where the state is reset.
            deterministic: greedy; otherwise epsilon-greedy with the epsilon of the training so far.
            action_masks: ``(N, A)``, for an environment whose observations have no ``action_mask``.
        """
        epsilon = 0.0 if deterministic else self.exploration_rate
        return self.policy.predict(
            observation, state, episode_start, action_masks=action_masks, epsilon=epsilon, rng=self._rng
        )

    def learn(
        self: SelfDRQN,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str = "DRQN",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfDRQN:
        """Train; the arguments are those of Stable-Baselines3's algorithms (``log_interval``: episodes)."""
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)

    def load_replay_buffer(self, path: str | pathlib.Path | io.BufferedIOBase, truncate_last_traj: bool = True) -> None:
        """Load the finished episodes of a saved buffer; the next ``learn`` resets the environments.

        The file is unpickled: only load files that you trust.
        """
        super().load_replay_buffer(path, truncate_last_traj)
        assert self.replay_buffer is not None
        self.replay_buffer.n_envs = self.n_envs
        self._last_obs = None

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        if reset_num_timesteps or self._last_obs is None:  # the environments are about to be reset
            self._state = None
            assert self.replay_buffer is not None
            self.replay_buffer.discard_unfinished()
        inside = isinstance(self.observation_space, spaces.Dict) and ACTION_MASK in self.observation_space.spaces
        self._ask_masks = not inside and self.env is not None and is_masking_supported(self.env)
        return super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        train_freq: TrainFreq,
        replay_buffer: ReplayBuffer,
        action_noise: ActionNoise | None = None,
        learning_starts: int = 0,
        log_interval: int | None = None,
    ) -> RolloutReturn:
        """Collect transitions, as Stable-Baselines3 does."""
        rollout = super().collect_rollouts(
            env, callback, train_freq, replay_buffer, action_noise, learning_starts, log_interval
        )
        if not rollout.continue_training:
            self._last_obs = None  # a callback ended it before the last step was stored: start new episodes
        return rollout

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        assert self._last_obs is not None
        assert self.env is not None
        self._masks = np.asarray(get_action_masks(self.env), dtype=bool) if self._ask_masks else None
        actions, self._state = self.policy.predict(
            self._last_obs,
            self._state,
            self._last_episode_starts,
            action_masks=self._masks,
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
        replay_buffer.add(self._last_obs, new_obs, buffer_action, reward, dones, infos, self._masks)
        self._last_obs, self._last_episode_starts = new_obs, dones

    def _on_step(self) -> None:
        if self.num_timesteps % self.target_update_interval < self.n_envs:
            polyak_update(self.q_net.parameters(), self.q_net_target.parameters(), self.tau)
            running = [get_parameters_by_name(net, ["running_"]) for net in (self.q_net, self.q_net_target)]
            polyak_update(running[0], running[1], 1.0)  # of batch normalisation
        self.exploration_rate = self._epsilon(self._current_progress_remaining)
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
        """The Huber loss of the values of the actions that were taken, averaged over the steps that have a target."""
        values = self.policy.q_net.along_episodes(batch.observations, batch.observed)
        taken = values[:, :-1].gather(2, batch.actions[..., None])[..., 0]
        with torch.no_grad():
            target_values = self.policy.q_net_target.along_episodes(batch.observations, batch.observed)
            chooser = values.detach() if self.double_q else target_values
            targets = bellman_targets(batch, chooser, target_values, self.gamma)
        losses = F.smooth_l1_loss(taken, targets, reduction="none") * batch.has_target
        return losses.sum() / batch.has_target.sum().clamp(min=1)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_state", "_masks", "_rng", "_epsilon"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "policy.optimizer"], []


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
