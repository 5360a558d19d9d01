"""The DRQN's replay of whole episodes: targets, padding, windows, memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import StopTrainingOnMaxEpisodes
from stable_baselines3.common.env_util import make_vec_env

from agents.drqn.buffers import EpisodeReplayBuffer
from agents.drqn.drqn import DRQN, bellman_targets
from tests.support.recall import SMALL, Recall, recalling

pytestmark = pytest.mark.usefixtures("one_thread")


def tiny_buffer() -> EpisodeReplayBuffer:
    space = spaces.Box(0, 255, (1,), np.uint8)
    return EpisodeReplayBuffer(100, space, spaces.Discrete(2), "cpu")


def fill(buffer: EpisodeReplayBuffer, length: int, first: int, truncated: bool = False) -> None:
    """One episode whose observations and rewards count from ``first``."""
    for t in range(length):
        over = t == length - 1
        info: dict[str, Any] = {"TimeLimit.truncated": over and truncated}
        if over:
            info["terminal_observation"] = np.array([first + length], np.uint8)
        now, then = np.array([[first + t]], np.uint8), np.array([[0 if over else first + t + 1]], np.uint8)
        buffer.add(now, then, np.array([t % 2]), np.array([float(first + t)]), np.array([over]), [info])


def test_episodes_of_different_lengths_get_the_right_targets() -> None:
    buffer = tiny_buffer()
    fill(buffer, 3, 10)
    fill(buffer, 2, 20, truncated=True)
    batch = buffer._padded(buffer._episodes)
    assert isinstance(batch.observations, torch.Tensor)
    assert batch.observations[..., 0].tolist() == [[10, 11, 12, 0], [20, 21, 22, 0]]
    assert batch.observed.tolist() == [[True, True, True, False], [True, True, True, False]]
    assert batch.actions.tolist() == [[0, 1, 0], [0, 1, 0]]
    assert batch.rewards.tolist() == [[10, 11, 12], [20, 21, 0]]
    assert batch.terminated.tolist() == [[False, False, True], [False, False, False]]
    assert batch.taken.tolist() == [[True, True, True], [True, True, False]]
    target = torch.tensor([[[0.0, 0.0], [1, 2], [4, 3], [9, 9]], [[0, 0], [5, 6], [8, 7], [9, 9]]])
    online = torch.tensor([[[0.0, 0.0], [1, 0], [0, 1], [9, 9]], [[0, 0], [1, 0], [0, 1], [9, 9]]])
    plain = bellman_targets(batch, target, target, 0.5)
    assert plain[batch.taken].tolist() == [10 + 1, 11 + 2, 12, 20 + 3, 21 + 4]
    double = bellman_targets(batch, online, target, 0.5)
    assert double[batch.taken].tolist() == [10 + 0.5, 11 + 1.5, 12, 20 + 2.5, 21 + 3.5]
    masks = batch.action_masks.clone()
    masks[0, 1] = torch.tensor([True, False])
    forbidden = bellman_targets(batch._replace(action_masks=masks), target, target, 0.5)
    assert forbidden[batch.taken].tolist() == [10 + 0.5, 11 + 2, 12, 20 + 3, 21 + 4]


@pytest.mark.parametrize("double_q", [True, False])
def test_padding_does_not_change_the_loss(double_q: bool) -> None:
    model = DRQN("MlpLstmPolicy", make_vec_env(Recall, 1), gamma=0.9, double_q=double_q, **SMALL)
    assert isinstance(model.replay_buffer, EpisodeReplayBuffer)
    model.learn(60)
    with torch.no_grad():
        model.policy.q_net_target.load_state_dict(model.policy.q_net.state_dict())
        for parameter in model.policy.q_net_target.head.parameters():
            parameter.neg_()  # the two networks never agree on the best action
    short, long = sorted({len(e): e for e in model.replay_buffer._episodes}.items())[::2]
    pad = model.replay_buffer._padded
    alone = [model.loss(pad([episode])).item() for _, episode in (short, long)]
    together = model.loss(pad([short[1], long[1]])).item()
    expected = (alone[0] * short[0] + alone[1] * long[0]) / (short[0] + long[0])
    assert together == pytest.approx(expected, rel=1e-5)
    # by hand, step by step, for the long one
    policy, _, episode = model.policy, *long
    values: list[torch.Tensor] = []
    targets: list[torch.Tensor] = []
    for network, kept in ((policy.q_net, values), (policy.q_net_target, targets)):
        state: Any = None
        for t in range(len(episode)):
            observation = torch.from_numpy(episode.observations[t]["observation"][None])
            scores, state = network.step(observation, state)
            kept.append(scores[0])
    errors = []
    for t, action in enumerate(episode.actions):
        following = 0.0
        if t + 1 < len(episode):
            chooser = values if double_q else targets
            following = targets[t + 1][int(chooser[t + 1].argmax())].item()
        difference = abs(values[t][action].item() - float(episode.rewards[t]) - 0.9 * following)
        errors.append(difference**2 / 2 if difference < 1 else difference - 0.5)
    assert alone[1] == pytest.approx(np.mean(errors), rel=1e-4)


def test_the_buffer_evicts_whole_episodes() -> None:
    buffer = tiny_buffer()
    buffer.buffer_size = 7
    for first, length in ((10, 3), (20, 3), (30, 4)):
        fill(buffer, length, first)
    assert [int(e.rewards[0]) for e in buffer._episodes] == [20, 30]
    assert buffer.size() == 7
    assert buffer.added == 10
    fill(buffer, 1, 40)
    assert [int(e.rewards[0]) for e in buffer._episodes] == [30, 40]
    assert buffer._episodes[0].observations[0]["observation"].dtype == np.uint8


def test_an_endless_episode_is_cut_and_goes_on() -> None:
    buffer = tiny_buffer()
    buffer.buffer_size = 4
    for t in range(10):
        now, then = np.array([[t]], np.uint8), np.array([[t + 1]], np.uint8)
        buffer.add(now, then, np.array([0]), np.array([1.0]), np.array([False]), [{}])
    assert buffer.size() <= 4 + 2
    batch = buffer._padded(buffer._episodes)
    assert isinstance(batch.observations, torch.Tensor)
    assert batch.observations[-1, :, 0].tolist() == [4, 5, 6, 7, 8]
    assert batch.taken.all()
    assert not batch.terminated.any()


def test_no_episode_is_stitched_together_from_two() -> None:
    """A callback's end, and a new learn(), leave no half-recorded episode behind."""
    model = recalling()
    for _ in range(6):
        model.learn(10_000, callback=StopTrainingOnMaxEpisodes(9), reset_num_timesteps=False)
        model.learn(24, reset_num_timesteps=False)
    model.learn(24)
    assert isinstance(model.replay_buffer, EpisodeReplayBuffer)
    for episode in model.replay_buffer._episodes:
        cues = [observation["observation"][0] for observation in episode.observations]
        assert cues[0] in (-1, 1)
        assert not any(cues[1:])
        assert 3 <= len(episode) <= 5


def test_play_remembers_what_replay_remembers() -> None:
    model = recalling()
    model.learning_starts, model.gradient_steps = 0, 0
    model.exploration_initial_eps = model.exploration_final_eps = 0.0
    model._setup_model()
    with torch.no_grad():
        for parameter in model.policy.q_net.parameters():
            parameter.mul_(4)
    model.learn(240)
    assert isinstance(model.replay_buffer, EpisodeReplayBuffer)
    batch = model.replay_buffer.sample(64)
    assert isinstance(batch.observations, torch.Tensor)
    greedy = model.policy.q_net.along_episodes(batch.observations, batch.observed).argmax(dim=2)[:, :-1]
    assert torch.equal(greedy[batch.taken], batch.actions[batch.taken])
    forgetful = model.policy(batch.observations[:, :-1][batch.taken])
    assert not torch.equal(forgetful, batch.actions[batch.taken])
