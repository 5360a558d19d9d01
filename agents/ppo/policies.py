"""Recurrent policies for sb3-contrib's ``RecurrentPPO`` with masked actions: the published design, and a stock one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from gymnasium import spaces
from sb3_contrib.common.recurrent.policies import RecurrentMultiInputActorCriticPolicy
from stable_baselines3.common.distributions import CategoricalDistribution, Distribution
from stable_baselines3.common.torch_layers import CombinedExtractor
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor

from agents.encoders import PublishedEncoder
from agents.features_extractor import AgentParts, AgentPolicy, RestoreFeatures

_FORBIDDEN = -1e8  # a logit; minus infinity would make the entropy NaN


class MaskedPolicy(RecurrentMultiInputActorCriticPolicy):
    """Base of the policies: the features extractor has the latest ``mask``, and forbidden actions are never chosen."""

    defaults: ClassVar[Mapping[str, Any]]
    """Arguments that a policy has if they are not given."""

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        **kwargs: Any,
    ) -> None:
        super().__init__(observation_space, action_space, lr_schedule, **{**self.defaults, **kwargs})

    def _get_action_dist_from_latent(self, latent_pi: Tensor) -> Distribution:
        mask, distribution = self.pi_features_extractor.mask, self.action_dist
        assert isinstance(mask, Tensor)
        assert isinstance(distribution, CategoricalDistribution)
        logits = self.action_net(latent_pi).float().masked_fill(mask == 0, _FORBIDDEN)
        return distribution.proba_distribution(action_logits=logits)


class MaskedFeatures(CombinedExtractor):
    """Stable-Baselines3's features of a Dict observation, which remembers the latest ``action_mask``."""

    def __init__(self, observation_space: spaces.Dict, **arguments: Any) -> None:
        super().__init__(observation_space, **arguments)
        self.mask = torch.ones(1)

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Join the features of all entries: ``(N, width)``."""
        self.mask = observations["action_mask"]
        features: Tensor = super().forward(observations)
        return features


class MaskedMultiInputLstmPolicy(MaskedPolicy):
    """sb3-contrib's ``MultiInputLstmPolicy``, which never picks an action that ``action_mask`` forbids."""

    defaults: ClassVar[Mapping[str, Any]] = {"features_extractor_class": MaskedFeatures}


class MaskedRecurrentPolicy(AgentPolicy, MaskedPolicy):
    """An LSTM policy over :class:`RestoreFeatures` that never picks an action that ``action_mask`` forbids.

    ``RecurrentPPO(MaskedRecurrentPolicy, env)`` needs no ``policy_kwargs``: the defaults are the published agent's
    widths, actor and critic each with an LSTM of 50 over shared features.
    """

    agent_kind = "logits"
    defaults: ClassVar[Mapping[str, Any]] = {
        "features_extractor_class": RestoreFeatures,
        "lstm_hidden_size": PublishedEncoder.hidden,
        "net_arch": [],
    }

    @staticmethod
    def _process_sequence(
        features: Tensor, lstm_states: tuple[Tensor, Tensor], episode_starts: Tensor, lstm: torch.nn.LSTM
    ) -> tuple[Tensor, Any]:
        """Run the LSTM over whole sequences at once if episodes begin only at their first steps.

        sb3-contrib's buffer gives such sequences, but its policy runs the LSTM step by step.

        Args:
            features: ``(n_seq * length, width)``, sequence after sequence.
            lstm_states: hidden and cell state at the sequences' beginnings, each ``(1, n_seq, hidden)``.
            episode_starts: ``(n_seq * length,)``, 1 where the state is reset.
            lstm: the actor's or the critic's.

        Returns:
            ``(n_seq * length, hidden)`` and the states at the end.
        """
        n_seq = lstm_states[0].shape[1]
        starts = episode_starts.reshape(n_seq, -1)
        if starts[:, 1:].any():
            by_step = RecurrentMultiInputActorCriticPolicy._process_sequence
            return by_step(features, lstm_states, episode_starts, lstm)
        continues = (1 - starts[:, 0]).view(1, n_seq, 1)
        hidden, cell = (state * continues for state in lstm_states)
        sequences = features.reshape(n_seq, -1, lstm.input_size).transpose(0, 1)
        latent, states = lstm(sequences, (hidden, cell))
        return latent.transpose(0, 1).flatten(0, 1), states

    def _agent_parts(self) -> list[AgentParts]:
        return [(self.pi_features_extractor, self.lstm_actor, self.action_net)]
