"""The policy that learns: as fast as it can be, and equal to sb3-contrib's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.policies import RecurrentMultiInputActorCriticPolicy
from stable_baselines3.common.vec_env import VecMonitor

from agents.agent import TEMPERATURE, RecurrentAgent
from agents.features_extractor import RestoreFeatures
from agents.ppo.policies import MaskedRecurrentPolicy
from agents.sb3_env import RestoreVecEnv
from tests.support.toolkit import photographs, pixelwise_toolbox

pytestmark = pytest.mark.usefixtures("one_thread")


class FeaturesOfAll(RestoreFeatures):
    """Features of padded steps, too, with images contiguous in memory."""

    def __init__(self, *spaces: Any, **arguments: Any) -> None:
        super().__init__(*spaces, **arguments)
        self.patch.features.memory_format = torch.contiguous_format

    def forward(self, observations: dict[str, torch.Tensor]) -> torch.Tensor:
        self.mask = observations["action_mask"]
        return self._encode(observations["image"], observations["last_action"].flatten(1).argmax(dim=1))


class StepwisePolicy(MaskedRecurrentPolicy):
    """The policy as sb3-contrib has it: padding included, sequences step by step."""

    _process_sequence = staticmethod(RecurrentMultiInputActorCriticPolicy._process_sequence)

    def __init__(self, *spaces: Any, **arguments: Any) -> None:
        super().__init__(*spaces, **{**arguments, "features_extractor_class": FeaturesOfAll})


def test_losses_and_gradients_are_those_of_the_stock_policy() -> None:
    env = VecMonitor(RestoreVecEnv(4, images=photographs(), toolbox=pixelwise_toolbox(True), upscale=(1, 4)))
    models = [
        RecurrentPPO(policy, env, n_steps=12, batch_size=40, n_epochs=1, seed=0)
        for policy in (MaskedRecurrentPolicy, StepwisePolicy)
    ]
    models[0].learn(48)
    models[1].policy.load_state_dict(models[0].policy.state_dict())
    samples: Any = next(models[0].rollout_buffer.get(40))
    real = samples.mask > 0
    assert not real.all()
    told, gradients = [], []
    for model in models:
        policy: Any = model.policy
        values, logs, entropy = policy.evaluate_actions(
            samples.observations, samples.actions.long().flatten(), samples.lstm_states, samples.episode_starts
        )
        assert entropy is not None
        ratio = torch.exp(logs - samples.old_log_prob)
        losses = [samples.advantages * ratio, (samples.returns - values.flatten()) ** 2, -entropy]
        told.append(torch.stack(losses)[:, real])
        model.policy.zero_grad()
        told[-1].mean().backward()  # type: ignore[no-untyped-call]
        gradients.append({name: parameter.grad for name, parameter in model.policy.named_parameters()})
    torch.testing.assert_close(told[0], told[1], rtol=1e-5, atol=1e-5)
    assert all(gradient is not None and gradient.any() for gradient in gradients[0].values())
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-5)


def test_states_are_forgotten_wherever_an_episode_begins() -> None:
    torch.manual_seed(0)
    lstm = torch.nn.LSTM(5, 7)
    features, states = torch.randn(12, 5), (torch.randn(1, 3, 7), torch.randn(1, 3, 7))
    for begins in ([], [0, 8], [0, 4, 8], [0, 2, 5]):  # sequences of four steps
        starts = torch.zeros(12)
        starts[begins] = 1
        ours, theirs = (
            policy._process_sequence(features, states, starts, lstm)
            for policy in (MaskedRecurrentPolicy, RecurrentMultiInputActorCriticPolicy)
        )
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_predicted_gains_become_a_distribution() -> None:
    env = RestoreVecEnv(2, images=photographs(), toolbox=pixelwise_toolbox())
    torch.manual_seed(0)
    agent = RecurrentAgent(pixelwise_toolbox().names, "q").eval().requires_grad_(False)
    model = RecurrentPPO(MaskedRecurrentPolicy, env, n_steps=4, seed=0)
    policy: Any = model.policy
    policy.load_agent(agent)
    observation: Any = env.reset()
    gains, _ = agent.scores(observation)
    logits, _ = policy.to_agent(agent.tools).scores(observation)
    assert np.allclose(logits, gains / TEMPERATURE, atol=1e-4)
