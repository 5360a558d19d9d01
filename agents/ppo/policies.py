"""The recurrent policy for sb3-contrib's ``RecurrentPPO``: the published design, with masked actions."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from sb3_contrib.common.recurrent.policies import RecurrentMultiInputActorCriticPolicy
from stable_baselines3.common.distributions import CategoricalDistribution, Distribution
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor

from agents.agent import HIDDEN, PATCH_SIZE, PatchFeatures, RecurrentAgent
from agents.encoders import EncoderName

_FORBIDDEN = -1e8  # a logit; minus infinity would make the entropy NaN

TensorObservation = dict[str, Tensor]


class RestoreFeatures(BaseFeaturesExtractor):
    """The agent's patch features for Stable-Baselines3's observations (images scaled, ``last_action`` one-hot).

    Padding, whose mask forbids every action, ``stop`` too, is not looked at; its features are zeros.

    Args:
        observation_space: the environment's.
        encoder: how to look at a patch, a key of :data:`agents.encoders.ENCODERS`.
        half: look in bf16.
    """

    def __init__(self, observation_space: spaces.Dict, encoder: EncoderName = "published", half: bool = False) -> None:
        last_action = observation_space["last_action"]
        assert isinstance(last_action, spaces.Discrete)
        size = (observation_space["image"].shape or ())[-2:]
        if PATCH_SIZE not in size:
            raise ValueError(
                f"the policy looks at patches of {PATCH_SIZE} pixels; make the environment with that patch_size"
            )
        features = PatchFeatures(int(last_action.n) - 2, encoder)
        super().__init__(observation_space, features.width)
        self.patch, self.half_precision = features, half
        shape = observation_space["image"].shape
        self._channels_last = shape is not None and shape[-1] == 3
        self.mask = torch.ones(1)
        """The action mask of the batch that was seen last: features and mask belong together."""

    def forward(self, observations: TensorObservation) -> Tensor:
        """Map a batch of observations to ``(N, width + n_tools)`` and remember its mask."""
        self.mask = observations["action_mask"]
        images, last_action = observations["image"], observations["last_action"].flatten(1).argmax(dim=1)
        if self._channels_last:
            images = images.permute(0, 3, 1, 2)
        real = self.mask.any(dim=1)
        if real.all():
            return self._look(images, last_action)
        seen = self._look(images[real], last_action[real])
        features = seen.new_zeros(len(real), seen.shape[1])
        features[real] = seen
        return features

    def _look(self, images: Tensor, last_action: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.half_precision):
            features: Tensor = self.patch(images, last_action)
        return features.float()


class MaskedRecurrentPolicy(RecurrentMultiInputActorCriticPolicy):
    """An LSTM policy over :class:`RestoreFeatures` that never picks an action that ``action_mask`` forbids.

    ``RecurrentPPO(MaskedRecurrentPolicy, env)`` needs no ``policy_kwargs``: the defaults are the published agent's
    widths, actor and critic each with an LSTM of 50 over shared features.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        **kwargs: Any,
    ) -> None:
        defaults: dict[str, Any] = {
            "features_extractor_class": RestoreFeatures,
            "lstm_hidden_size": HIDDEN,
            "net_arch": [],
        }
        super().__init__(observation_space, action_space, lr_schedule, **{**defaults, **kwargs})

    @staticmethod
    def _process_sequence(
        features: Tensor, lstm_states: tuple[Tensor, Tensor], episode_starts: Tensor, lstm: torch.nn.LSTM
    ) -> tuple[Tensor, Any]:
        """Run the LSTM along all sequences at once, where episodes begin at their first steps alone.

        sb3-contrib's buffer cuts its sequences so, but its policy takes them step by step.

        Args:
            features: ``(n_seq * length, width)``, sequence after sequence.
            lstm_states: hidden and cell state at the sequences' beginnings, each ``(1, n_seq, hidden)``.
            episode_starts: ``(n_seq * length,)``, 1 where the state is to be forgotten.
            lstm: the actor's or the critic's.

        Returns:
            ``(n_seq * length, hidden)`` and the states at the end.
        """
        n_seq = lstm_states[0].shape[1]
        starts = episode_starts.reshape(n_seq, -1)
        if starts[:, 1:].any():
            by_step = RecurrentMultiInputActorCriticPolicy._process_sequence
            return by_step(features, lstm_states, episode_starts, lstm)
        going_on = (1 - starts[:, 0]).view(1, n_seq, 1)
        hidden, cell = (state * going_on for state in lstm_states)
        sequences = features.reshape(n_seq, -1, lstm.input_size).transpose(0, 1)
        latent, states = lstm(sequences, (hidden, cell))
        return latent.transpose(0, 1).flatten(0, 1), states

    def _get_action_dist_from_latent(self, latent_pi: Tensor) -> Distribution:
        extractor, distribution = self.pi_features_extractor, self.action_dist
        assert isinstance(extractor, RestoreFeatures)
        assert isinstance(distribution, CategoricalDistribution)
        logits = self.action_net(latent_pi).float().masked_fill(extractor.mask == 0, _FORBIDDEN)
        return distribution.proba_distribution(action_logits=logits)

    def to_agent(self, tools: tuple[str, ...], recipe: dict[str, Any] | None = None) -> RecurrentAgent:
        """The actor alone, as the agent that restores without Stable-Baselines3; equal in its every choice."""
        extractor = self.pi_features_extractor
        assert isinstance(extractor, RestoreFeatures)
        agent = RecurrentAgent(tools, "logits", recipe, extractor.patch.encoder)
        for target, source in self._shared_parts(agent):
            target.load_state_dict(source.state_dict())
        return agent.eval().requires_grad_(False).to(self.device)

    def load_agent(self, agent: RecurrentAgent) -> None:
        """Take over the actor's weights from an agent, to train it further."""
        for source, target in self._shared_parts(agent):
            target.load_state_dict(source.state_dict())

    def _shared_parts(self, agent: RecurrentAgent) -> list[tuple[torch.nn.Module, torch.nn.Module]]:
        extractor = self.pi_features_extractor
        assert isinstance(extractor, RestoreFeatures)
        return [(agent.extractor, extractor.patch), (agent.lstm, self.lstm_actor), (agent.head, self.action_net)]
