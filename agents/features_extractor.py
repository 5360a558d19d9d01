"""What the policies of all algorithms share: the agent's features, and the exchange of weights with an agent."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from agents.agent import PATCH_SIZE, TEMPERATURE, PatchFeatures, RecurrentAgent
from agents.encoders import EncoderName

AgentParts = tuple[nn.Module | None, nn.LSTM, nn.Module]
"""Features extractor, LSTM and last layer of a network that has an agent's shape."""


class RestoreFeatures(BaseFeaturesExtractor):
    """The agent's patch features for Stable-Baselines3's observations (images scaled, ``last_action`` one-hot).

    Padding rows, whose mask forbids every action, even ``stop``, get zeros as features without being encoded.

    Args:
        observation_space: the environment's.
        encoder: a key of :data:`agents.encoders.ENCODERS`.
        half: compute features in bf16.
    """

    def __init__(self, observation_space: spaces.Dict, encoder: EncoderName = "published", half: bool = False) -> None:
        last_action = observation_space["last_action"]
        assert isinstance(last_action, spaces.Discrete)
        shape = observation_space["image"].shape or ()
        if PATCH_SIZE not in shape[-2:]:
            raise ValueError(
                f"the policy takes patches of {PATCH_SIZE} pixels; make the environment with that patch_size"
            )
        features = PatchFeatures(int(last_action.n) - 2, encoder)
        for module in features.modules():
            if isinstance(module, nn.Dropout):  # for imitation; algorithms compare what a policy says twice
                module.p = 0.0
        super().__init__(observation_space, features.width)
        self.patch, self.half_precision = features, half
        self._channels_last = shape[-1] == 3
        self.mask = torch.ones(1)
        """The action mask of the latest batch, for the policy that gets its features."""

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Map a batch of observations to ``(N, width + n_tools)`` and store its mask."""
        self.mask = observations["action_mask"]
        images, last_action = observations["image"], observations["last_action"].flatten(1).argmax(dim=1)
        if self._channels_last:
            images = images.permute(0, 3, 1, 2)
        real = self.mask.any(dim=1)
        if real.all():
            return self._encode(images, last_action)
        encoded = self._encode(images[real], last_action[real])
        features = encoded.new_zeros(len(real), encoded.shape[1])
        features[real] = encoded
        return features

    def _encode(self, images: Tensor, last_action: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.half_precision):
            features: Tensor = self.patch(images, last_action)
        return features.float()


class AgentPolicy:
    """A policy of Stable-Baselines3 with the network of an agent (:class:`agents.agent.RecurrentAgent`)."""

    agent_kind: ClassVar[Literal["logits", "q"]]

    def to_agent(self, tools: tuple[str, ...]) -> RecurrentAgent:
        """Export the policy as an agent that runs without Stable-Baselines3 and chooses the same actions."""
        extractor, lstm, head = self._agent_parts()[0]
        assert isinstance(extractor, RestoreFeatures)
        agent = RecurrentAgent(tools, self.agent_kind, encoder=extractor.patch.encoder)
        for target, source in ((agent.extractor, extractor.patch), (agent.lstm, lstm), (agent.head, head)):
            target.load_state_dict(source.state_dict())
        return agent.eval().requires_grad_(False).to(extractor.patch.embed.weight.device)

    def load_agent(self, agent: RecurrentAgent) -> None:
        """Load an agent's weights into the policy's networks.

        Predicted gains become logits, or the reverse, by :data:`agents.agent.TEMPERATURE`.
        """
        scale = TEMPERATURE ** ((agent.kind == "logits") - (self.agent_kind == "logits"))
        for extractor, lstm, head in self._agent_parts():
            assert isinstance(extractor, RestoreFeatures)
            for source, target in ((agent.extractor, extractor.patch), (agent.lstm, lstm), (agent.head, head)):
                target.load_state_dict(source.state_dict())
            with torch.no_grad():
                for parameter in head.parameters():
                    parameter.mul_(scale)

    def _agent_parts(self) -> list[AgentParts]:
        """The parts of the networks, of the one that acts first."""
        raise NotImplementedError
