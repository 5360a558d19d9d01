"""Recurrent Q-networks and their policies, for :class:`agents.drqn.drqn.DRQN` on any observation space."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BaseModel
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    FlattenExtractor,
    NatureCNN,
    create_mlp,
)
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.dqn.policies import DQNPolicy
from torch import Tensor, nn

from agents.drqn.buffers import ACTION_MASK
from agents.encoders import PublishedEncoder
from agents.features_extractor import AgentParts, AgentPolicy, RestoreFeatures

State = tuple[Tensor, Tensor]
"""The LSTM's hidden and cell state, each ``(n_lstm_layers, N, lstm_hidden_size)``."""


class RecurrentQNetwork(BaseModel):
    """Features, an LSTM, and a head that gives the value of every action; made by :class:`RecurrentQPolicy`."""

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Discrete,
        features_extractor: BaseFeaturesExtractor,
        features_dim: int,
        lstm_hidden_size: int,
        n_lstm_layers: int,
        net_arch: list[int],
        activation_fn: type[nn.Module],
        normalize_images: bool,
    ) -> None:
        super().__init__(
            observation_space, action_space, features_extractor=features_extractor, normalize_images=normalize_images
        )
        self.lstm = nn.LSTM(features_dim, lstm_hidden_size, n_lstm_layers)
        self.head = nn.Sequential(*create_mlp(lstm_hidden_size, int(action_space.n), net_arch, activation_fn))

    def step(
        self, observations: PyTorchObs, state: State | None = None, episode_starts: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Values ``(N, A)`` after one observation each, and the next state.

        Args:
            observations: ``(N, ...)``.
            state: from the step before; None at the start.
            episode_starts: ``(N,)`` bool: where the state is reset.
        """
        features = self._features(observations)
        if state is not None and episode_starts is not None:
            continues = (~episode_starts).to(features)[None, :, None]
            state = (state[0] * continues, state[1] * continues)
        latent, state = self.lstm(features[None], state)
        values: Tensor = self.head(latent[0])
        return values, state

    def along_episodes(self, observations: PyTorchObs, observed: Tensor) -> Tensor:
        """Values ``(N, S, A)`` along episodes from their beginnings; meaningless where nothing was observed.

        Args:
            observations: ``(N, S, ...)``.
            observed: ``(N, S)`` bool; unobserved steps are at an episode's end and are skipped.
        """
        flat = (
            {k: v[observed] for k, v in observations.items()}
            if isinstance(observations, dict)
            else observations[observed]
        )
        features = self._features(flat)
        latent = features.new_zeros(*observed.shape, features.shape[1])
        latent[observed] = features
        values: Tensor = self.head(self.lstm(latent.transpose(0, 1))[0].transpose(0, 1))
        return values

    def _features(self, observations: PyTorchObs) -> Tensor:
        assert self.features_extractor is not None
        return self.extract_features(observations, self.features_extractor)


class RecurrentQPolicy(DQNPolicy):
    """Greedy or epsilon-greedy play by a recurrent Q-network, and its target network.

    Actions that ``action_mask`` in a Dict observation forbids are never chosen.

    Args:
        observation_space: of one observation.
        action_space: Discrete.
        lr_schedule: of the learning rate.
        lstm_hidden_size: width of the LSTM.
        n_lstm_layers: layers of the LSTM.
        net_arch: widths of the layers between the LSTM and the values (default: none).
        features_extractor_class: maps observations to features.
        arguments: other arguments of Stable-Baselines3's ``DQNPolicy``.
    """

    default_features_extractor: ClassVar[type[BaseFeaturesExtractor]] = FlattenExtractor
    default_lstm_hidden_size: ClassVar[int] = 256
    q_net: RecurrentQNetwork  # type: ignore[assignment]
    q_net_target: RecurrentQNetwork  # type: ignore[assignment]
    action_space: spaces.Discrete

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        lstm_hidden_size: int | None = None,
        n_lstm_layers: int = 1,
        net_arch: list[int] | None = None,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        **arguments: Any,
    ) -> None:
        mask = observation_space.spaces.get(ACTION_MASK) if isinstance(observation_space, spaces.Dict) else None
        if mask is not None and mask.shape != (int(action_space.n),):
            raise ValueError(f"the observation's {ACTION_MASK} must have an entry per action, ({action_space.n},)")
        self._lstm: dict[str, Any] = {
            "lstm_hidden_size": lstm_hidden_size or self.default_lstm_hidden_size,
            "n_lstm_layers": n_lstm_layers,
        }
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            list(net_arch or []),
            features_extractor_class=features_extractor_class or self.default_features_extractor,
            **arguments,
        )

    def make_q_net(self) -> RecurrentQNetwork:  # type: ignore[override]
        """Make a network with its own features extractor."""
        arguments = self._update_features_extractor(self.net_args, features_extractor=None)
        return RecurrentQNetwork(**arguments, **self._lstm).to(self.device)

    def predict(
        self,
        observation: npt.NDArray[Any] | dict[str, npt.NDArray[Any]],
        state: tuple[npt.NDArray[Any], ...] | None = None,
        episode_start: npt.NDArray[Any] | None = None,
        deterministic: bool = False,
        *,
        epsilon: float = 0.0,
        rng: np.random.Generator | None = None,
    ) -> tuple[npt.NDArray[Any], tuple[npt.NDArray[Any], ...] | None]:
        """Choose actions and return the next state.

        Args:
            observation: one, or a batch of ``N``.
            state: what the last call returned; None at the start.
            episode_start: ``(N,)``, where the state is reset.
            deterministic: with no epsilon.
            epsilon: probability of a random allowed action instead.
            rng: for the random actions.
        """
        self.set_training_mode(False)
        observations, vectorized = self.obs_to_tensor(observation)
        starts = lstm_state = None
        if episode_start is not None:
            starts = torch.as_tensor(np.asarray(episode_start, dtype=bool), device=self.device).reshape(-1)
        if state is not None:
            hidden, cell = (torch.as_tensor(part, dtype=torch.float32, device=self.device) for part in state)
            lstm_state = (hidden, cell)
        with torch.no_grad():
            values, lstm_state = self.q_net.step(observations, lstm_state, starts)
            allowed = allowed_actions(observations, values)
            actions: npt.NDArray[Any] = greedy(values, allowed).cpu().numpy()
        if epsilon > 0 and not deterministic:
            rng = rng or np.random.default_rng()
            draws = np.where(allowed.cpu().numpy(), rng.random(tuple(values.shape)), -1)
            actions = np.where(rng.random(len(values)) < epsilon, draws.argmax(axis=1), actions)
        return (actions if vectorized else actions[0]), tuple(part.cpu().numpy() for part in lstm_state)

    def _predict(self, obs: PyTorchObs, deterministic: bool = True) -> Tensor:
        values, _ = self.q_net.step(obs)
        return greedy(values, allowed_actions(obs, values))

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), **self._lstm}


def greedy(values: Tensor, allowed: Tensor) -> Tensor:
    """The best allowed action: ``(..., A)`` values and bool masks to ``(...)``."""
    return values.masked_fill(~allowed, -torch.inf).argmax(dim=-1)


def allowed_actions(observations: PyTorchObs, values: Tensor) -> Tensor:
    """The mask of the observations, bool ``(N, A)`` like the values; all actions without one."""
    if isinstance(observations, dict) and ACTION_MASK in observations:
        return observations[ACTION_MASK].bool()
    return torch.ones_like(values, dtype=torch.bool)


MlpLstmPolicy = RecurrentQPolicy


class CnnLstmPolicy(RecurrentQPolicy):
    """:class:`RecurrentQPolicy` for images, with the features of the Nature CNN."""

    default_features_extractor = NatureCNN


class MultiInputLstmPolicy(RecurrentQPolicy):
    """:class:`RecurrentQPolicy` for Dict observations, with the joined features of all entries."""

    default_features_extractor = CombinedExtractor


class RestoreQPolicy(AgentPolicy, RecurrentQPolicy):
    """The policy for DRQN in ``ImageRestore-v0``: the published network, with Q-values.

    It is an LSTM over :class:`agents.features_extractor.RestoreFeatures`, with RL-Restore's widths.
    ``DRQN(RestoreQPolicy, env)`` needs no ``policy_kwargs``.
    """

    agent_kind = "q"
    default_features_extractor = RestoreFeatures
    default_lstm_hidden_size = PublishedEncoder.hidden

    def _agent_parts(self) -> list[AgentParts]:
        networks = (self.q_net, self.q_net_target)
        if len(self.q_net.head) != 1:
            raise ValueError("an agent has an LSTM and one linear layer; this policy has others")
        return [(network.features_extractor, network.lstm, network.head[0]) for network in networks]
