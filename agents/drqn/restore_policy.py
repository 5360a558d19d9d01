"""The policy for DRQN in ``ImageRestore-v0``: the published design of network."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule

from agents.agent import HIDDEN, RecurrentAgent
from agents.drqn.policies import MultiInputLstmPolicy, RecurrentQNetwork
from agents.ppo.policies import RestoreFeatures


class RestoreQPolicy(MultiInputLstmPolicy):
    """An LSTM Q-network over :class:`agents.ppo.policies.RestoreFeatures`, with RL-Restore's widths.

    ``DRQN(RestoreQPolicy, env)`` needs no ``policy_kwargs``.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        **kwargs: Any,
    ) -> None:
        published: dict[str, Any] = {"features_extractor_class": RestoreFeatures, "lstm_hidden_size": HIDDEN}
        super().__init__(observation_space, action_space, lr_schedule, **{**published, **kwargs})

    def to_agent(self, tools: tuple[str, ...], recipe: dict[str, Any] | None = None) -> RecurrentAgent:
        """The Q-network as the agent that restores without Stable-Baselines3; equal in its every choice."""
        extractor = self.q_net.features_extractor
        encoder = extractor.patch.encoder if isinstance(extractor, RestoreFeatures) else "published"
        agent = RecurrentAgent(tools, "q", recipe, encoder)
        for target, source in _shared_parts(agent, self.q_net):
            target.load_state_dict(source.state_dict())
        return agent.eval().requires_grad_(False).to(self.device)

    def load_agent(self, agent: RecurrentAgent) -> None:
        """Take over an agent's weights, into the target network too, to train it further."""
        for network in (self.q_net, self.q_net_target):
            for source, target in _shared_parts(agent, network):
                target.load_state_dict(source.state_dict())


def _shared_parts(agent: RecurrentAgent, network: RecurrentQNetwork) -> list[tuple[torch.nn.Module, torch.nn.Module]]:
    extractor, lstm = network.features_extractor, network.lstm
    if not isinstance(extractor, RestoreFeatures) or lstm is None or len(network.head) != 1:
        raise ValueError("an agent has RestoreFeatures, an LSTM and one linear layer; this policy has others")
    return [(agent.extractor, extractor.patch), (agent.lstm, lstm), (agent.head, network.head[0])]
