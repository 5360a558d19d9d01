from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import pytest
import torch
from gymnasium import spaces
from sb3_contrib.common.maskable.evaluation import evaluate_policy as evaluate_masked
from stable_baselines3.common.callbacks import EvalCallback, StopTrainingOnMaxEpisodes, StopTrainingOnRewardThreshold
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from agents.drqn import DRQN, bellman_targets
from agents.episode_replay import EpisodeReplayBuffer
from agents.network import RecurrentAgent, load_policy, save_policy
from agents.recurrent_q import MultiInputLstmPolicy, RecurrentQPolicy
from agents.restore_q import RestoreQPolicy
from agents.sb3_env import RestoreVecEnv
from tests.toolkit import photographs, pixelwise_toolbox

pytestmark = pytest.mark.usefixtures("one_thread")


class Recall(gym.Env[npt.NDArray[np.float32], np.int64]):
    """The first observation shows one of two cues; after 2 to 4 blank ones it pays to name it."""

    observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.cue, self.left = int(self.np_random.integers(2)), int(self.np_random.integers(3, 6))
        return np.array([2 * self.cue - 1, 0, 0], np.float32), {}

    def step(self, action: np.int64) -> Any:
        self.left -= 1
        over = self.left == 0
        observation = np.array([0, 1, self.left == 1], np.float32)
        return observation, (1.0 if action == self.cue else -1.0) * over, over, False, {}


class Forbidding(gym.Env[Any, np.int64]):
    """Raises on an action that is forbidden; which ones are changes with every step.

    The mask is in the observation, or only behind the method ``action_masks``. Episodes are cut off after 5 steps.
    """

    action_space = spaces.Discrete(4)

    def __init__(self, inside: bool) -> None:
        self.inside = inside
        seen = spaces.Box(0, 255, (2,), np.uint8)
        both = spaces.Dict({"seen": seen, "action_mask": spaces.MultiBinary(4)})
        self.observation_space: spaces.Space[Any] = both if inside else seen

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return self._observe(), {}

    def step(self, action: np.int64) -> Any:
        if not self.mask[action]:
            raise ValueError(f"action {action} is forbidden")
        self.steps += 1
        return self._observe(), float(action), False, self.steps == 5, {}

    def action_masks(self) -> npt.NDArray[np.int8]:
        return self.mask

    def _observe(self) -> Any:
        self.mask = np.zeros(4, np.int8)
        self.mask[self.np_random.choice(4, 2, replace=False)] = 1
        seen = np.array([self.steps, 7], np.uint8)
        return {"seen": seen, "action_mask": self.mask.copy()} if self.inside else seen


class Squares(gym.Env[npt.NDArray[np.uint8], np.int64]):
    """An image of one grey, bright or dark; it pays to say which."""

    observation_space = spaces.Box(0, 255, (36, 36, 1), np.uint8)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action: np.int64) -> Any:
        reward = float(action == self.bright)
        return self._observe(), reward, bool(self.np_random.random() < 0.5), False, {}

    def _observe(self) -> npt.NDArray[np.uint8]:
        self.bright = int(self.np_random.integers(2))
        return np.full((36, 36, 1), 200 if self.bright else 50, np.uint8)


SMALL: dict[str, Any] = {"learning_starts": 50, "buffer_size": 1000, "batch_size": 8, "device": "cpu", "seed": 0}


def recalling(recurrent: bool, seed: int = 0) -> DRQN:
    return DRQN(
        "MlpLstmPolicy",
        make_vec_env(Recall, 8, seed=seed),
        learning_rate=1e-2,
        buffer_size=4000,
        learning_starts=200,
        train_freq=1,
        gradient_steps=1,
        target_update_interval=200,
        exploration_fraction=0.5,
        policy_kwargs={"lstm_hidden_size": 16, "recurrent": recurrent},
        seed=seed,
        device="cpu",
    )


@pytest.mark.parametrize(("recurrent", "low", "high"), [(True, 0.95, 1.0), (False, -0.4, 0.4)])
def test_a_cue_is_remembered_only_with_memory(recurrent: bool, low: float, high: float) -> None:
    model = recalling(recurrent).learn(4000)
    gain, _ = evaluate_policy(model, make_vec_env(Recall, 8, seed=99), n_eval_episodes=200)
    assert isinstance(gain, float)
    assert low <= gain <= high


def test_the_test_environments_are_sound() -> None:
    for env in (Recall(), Squares()):
        check_env(env)


@pytest.mark.parametrize("inside", [True, False])
def test_forbidden_actions_are_never_played(inside: bool) -> None:
    env = VecMonitor(DummyVecEnv([lambda: Forbidding(inside)] * 3))
    policy = "MultiInputLstmPolicy" if inside else "MlpLstmPolicy"
    model = DRQN(policy, env, exploration_fraction=0.5, target_update_interval=50, train_freq=1, **SMALL)
    model.learn(300)
    assert model._n_updates > 0
    assert model.exploration_rate == pytest.approx(0.1)
    batch = model.replay_buffer.sample(8) if model.replay_buffer else None
    assert batch is not None
    assert batch.action_masks[batch.seen].sum(dim=1).eq(2).all()
    # after a time limit the method speaks of the next episode already: the last step is then left out
    assert batch.taught.sum(dim=1).tolist() == [5 if inside else 4] * 8
    env.close()


def test_the_masks_of_an_evaluation_hold_too() -> None:
    model = DRQN("MlpLstmPolicy", DummyVecEnv([lambda: Forbidding(False)]), **SMALL)
    env = DummyVecEnv([lambda: Forbidding(False)] * 2)
    gain, _ = evaluate_masked(cast(Any, model), env, n_eval_episodes=4, warn=False)
    assert isinstance(gain, float)
    assert 0 < gain <= 15


def test_masks_hold_even_against_the_values() -> None:
    model = DRQN("MultiInputLstmPolicy", DummyVecEnv([lambda: Forbidding(True)]), **SMALL)
    head = model.policy.q_net.head[-1]
    assert isinstance(head, torch.nn.Linear)
    with torch.no_grad():
        head.bias[:] = torch.tensor([9.0, 8.0, 7.0, 6.0])
    mask = np.array([[0, 0, 1, 1], [1, 1, 1, 1]], np.int8)
    observation = {"seen": np.zeros((2, 2), np.uint8), "action_mask": mask}
    assert model.predict(observation, deterministic=True)[0].tolist() == [2, 0]
    further = np.array([[1, 1, 0, 1], [0, 1, 1, 1]], dtype=bool)
    assert model.predict(observation, deterministic=True, action_masks=further)[0].tolist() == [3, 1]
    drawn = [model.predict(observation)[0] for _ in range(60)]
    assert {int(actions[0]) for actions in drawn} == {2, 3}
    assert {int(actions[1]) for actions in drawn} == {0, 1, 2, 3}
    alone = {key: value[0] for key, value in observation.items()}
    action, _ = model.predict(alone, deterministic=True)
    assert action.shape == ()
    assert action == 2


def tiny_buffer(**arguments: Any) -> EpisodeReplayBuffer:
    space = spaces.Box(0, 255, (1,), np.uint8)
    return EpisodeReplayBuffer(100, space, spaces.Discrete(2), "cpu", **arguments)


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
    assert batch.seen.tolist() == [[True, True, True, False], [True, True, True, False]]
    assert batch.actions.tolist() == [[0, 1, 0], [0, 1, 0]]
    assert batch.rewards.tolist() == [[10, 11, 12], [20, 21, 0]]
    assert batch.terminated.tolist() == [[False, False, True], [False, False, False]]
    assert batch.taught.tolist() == [[True, True, True], [True, True, False]]
    target = torch.tensor([[[0.0, 0.0], [1, 2], [4, 3], [9, 9]], [[0, 0], [5, 6], [8, 7], [9, 9]]])
    online = torch.tensor([[[0.0, 0.0], [1, 0], [0, 1], [9, 9]], [[0, 0], [1, 0], [0, 1], [9, 9]]])
    plain = bellman_targets(batch, target, target, 0.5)
    assert plain[batch.taught].tolist() == [10 + 1, 11 + 2, 12, 20 + 3, 21 + 4]
    double = bellman_targets(batch, online, target, 0.5)
    assert double[batch.taught].tolist() == [10 + 0.5, 11 + 1.5, 12, 20 + 2.5, 21 + 3.5]
    masks = batch.action_masks.clone()
    masks[0, 1] = torch.tensor([True, False])
    forbidden = bellman_targets(batch._replace(action_masks=masks), target, target, 0.5)
    assert forbidden[batch.taught].tolist() == [10 + 0.5, 11 + 2, 12, 20 + 3, 21 + 4]


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
        state = policy._empty(1)
        for t in range(len(episode)):
            observation = torch.from_numpy(episode.observations["observation"][t : t + 1])
            scores, state = network.step(observation, state, torch.tensor([t == 0]))
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
    assert buffer._episodes[0].observations["observation"].dtype == np.uint8
    fewer = tiny_buffer(max_episodes=2)
    for first in (10, 20, 30):
        fill(fewer, 2, first)
    assert [int(e.rewards[0]) for e in fewer._episodes] == [20, 30]


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
    assert batch.taught.all()
    assert not batch.terminated.any()


def test_windows_come_from_inside_an_episode() -> None:
    buffer = tiny_buffer(sequence_length=2)
    buffer.rng = np.random.default_rng(0)
    fill(buffer, 4, 10)
    batch = buffer.sample(64)
    assert isinstance(batch.observations, torch.Tensor)
    seen = {tuple(row) for row in batch.observations[..., 0].tolist()}
    assert seen == {(10, 11, 12), (11, 12, 13), (12, 13, 0)}
    last = batch.observations[:, 0, 0] == 12
    assert torch.equal(batch.terminated[:, 1], last)
    assert torch.equal(batch.seen[:, 2], ~last)
    assert batch.taught.all()


def test_an_empty_buffer_says_so() -> None:
    with pytest.raises(ValueError, match="no episode"):
        tiny_buffer().sample(1)


def test_cartpole_gets_its_values() -> None:
    model = DRQN(
        "MlpLstmPolicy",
        make_vec_env("CartPole-v1", 4, seed=0),
        learning_rate=3e-3,
        gamma=0.5,
        target_update_interval=100,
        train_freq=1,
        policy_kwargs={"lstm_hidden_size": 16},
        **SMALL,
    )
    model.learn(800)
    assert isinstance(model.replay_buffer, EpisodeReplayBuffer)
    batch = model.replay_buffer.sample(32)
    values = model.policy.q_net.along_episodes(batch.observations, batch.seen)
    assert values[:, 5].mean().item() == pytest.approx(2, abs=0.15)  # 1 / (1 - gamma), in mid-episode


def test_it_learns_from_images() -> None:
    model = DRQN(
        "CnnLstmPolicy",
        make_vec_env(Squares, 4, seed=0),
        learning_rate=1e-3,
        gamma=0.5,
        policy_kwargs={"lstm_hidden_size": 16, "features_extractor_kwargs": {"features_dim": 16}},
        target_update_interval=100,
        train_freq=1,
        **SMALL,
    )
    model.learn(400)
    bright, dark = (np.full((1, 36, 36, 1), grey, np.uint8) for grey in (200, 50))
    assert model.predict(bright, deterministic=True)[0] == 1
    assert model.predict(dark, deterministic=True)[0] == 0
    assert isinstance(model.replay_buffer, EpisodeReplayBuffer)
    assert model.replay_buffer._episodes[0].observations["observation"].dtype == np.uint8


def test_a_seed_decides_everything() -> None:
    first, again, other = (recalling(True, seed).learn(480) for seed in (3, 3, 4))
    pairs = [
        [torch.equal(a, b) for a, b in zip(first.policy.parameters(), model.policy.parameters(), strict=True)]
        for model in (again, other)
    ]
    assert all(pairs[0])
    assert not all(pairs[1])


def test_a_saved_model_predicts_the_same_and_goes_on(tmp_path: Path) -> None:
    model = recalling(True).learn(480)
    model.save(tmp_path / "model")
    assert model.replay_buffer is not None
    model.save_replay_buffer(tmp_path / "replay")
    loaded = DRQN.load(tmp_path / "model", env=make_vec_env(Recall, 8, seed=1), device="cpu")
    assert loaded.exploration_rate == model.exploration_rate
    rng, state, other = np.random.default_rng(0), None, None
    for t in range(4):
        observation = rng.normal(size=(8, 3)).astype(np.float32)
        start = np.full(8, t == 0)
        actions, state = model.predict(observation, state, start, deterministic=True)
        others, other = loaded.predict(observation, other, start, deterministic=True)
        assert actions.tolist() == others.tolist()
        assert state is not None
        assert other is not None
        assert np.array_equal(state[0], other[0])
    before = [p.clone() for p in loaded.policy.q_net.parameters()]
    loaded.learn(160, reset_num_timesteps=False)
    assert loaded.num_timesteps == 640
    assert loaded._n_updates == model._n_updates  # fewer than learning_starts transitions: nothing learnt yet
    loaded.load_replay_buffer(tmp_path / "replay")
    assert loaded.replay_buffer is not None
    assert len(loaded.replay_buffer) == len(model.replay_buffer)
    loaded.learn(160, reset_num_timesteps=False)
    assert loaded._n_updates > model._n_updates
    assert not all(torch.equal(a, b) for a, b in zip(before, loaded.policy.q_net.parameters(), strict=True))
    policy = RecurrentQPolicy.load(str(_saved(model.policy, tmp_path)), device="cpu")
    observation = rng.normal(size=(8, 3)).astype(np.float32)
    expected = model.policy.predict(observation, deterministic=True)[0]
    assert policy.predict(observation, deterministic=True)[0].tolist() == expected.tolist()


def _saved(policy: RecurrentQPolicy, folder: Path) -> Path:
    policy.save(str(folder / "policy.pt"))
    return folder / "policy.pt"


def test_callbacks_and_the_log(tmp_path: Path) -> None:
    model = recalling(True)
    model.set_logger(configure(str(tmp_path), ["csv", "tensorboard"]))
    model.learn(10_000, callback=StopTrainingOnMaxEpisodes(20), log_interval=5)
    assert 20 * 8 * 3 <= model.num_timesteps <= 20 * 8 * 5
    stop = StopTrainingOnRewardThreshold(-2.0)
    evaluation = EvalCallback(make_vec_env(Recall, 2), stop, eval_freq=10, n_eval_episodes=4, verbose=0)
    before = model.num_timesteps
    model.learn(10_000, callback=evaluation, reset_num_timesteps=False, log_interval=5)
    assert model.num_timesteps == before + 80
    model.learn(480, reset_num_timesteps=False, log_interval=5)
    header = (tmp_path / "progress.csv").read_text().splitlines()[0].split(",")
    assert {"rollout/exploration_rate", "rollout/ep_rew_mean", "train/loss", "train/grad_norm"} <= set(header)
    assert list(tmp_path.glob("events.out.tfevents.*"))
    model.logger.close()


def test_no_episode_is_stitched_together_from_two() -> None:
    """A callback's end, and a new learn(), leave no half-recorded episode behind."""
    model = recalling(True)
    for _ in range(6):
        model.learn(10_000, callback=StopTrainingOnMaxEpisodes(9), reset_num_timesteps=False)
        model.learn(24, reset_num_timesteps=False)
    model.learn(24)
    assert isinstance(model.replay_buffer, EpisodeReplayBuffer)
    for episode in model.replay_buffer._episodes:
        cues = episode.observations["observation"][:, 0]
        assert cues[0] in (-1, 1)
        assert not cues[1:].any()
        assert 3 <= len(episode) <= 5


def test_play_remembers_what_replay_remembers() -> None:
    model = recalling(True)
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
    greedy = model.policy.q_net.along_episodes(batch.observations, batch.seen).argmax(dim=2)[:, :-1]
    assert torch.equal(greedy[batch.taught], batch.actions[batch.taught])
    forgetful = model.policy(batch.observations[:, :-1][batch.taught])
    assert not torch.equal(forgetful, batch.actions[batch.taught])


def test_the_target_network_follows_at_its_interval() -> None:
    model = recalling(True)
    model.learning_starts, model.target_update_interval = 8, 10_000
    first = [p.clone() for p in model.policy.q_net_target.parameters()]
    model.learn(480)
    assert all(torch.equal(a, b) for a, b in zip(first, model.policy.q_net_target.parameters(), strict=True))
    model.target_update_interval, model.tau = 488, 0.25
    online = [p.clone() for p in model.policy.q_net.parameters()]
    model.gradient_steps = 0
    model.learn(8, reset_num_timesteps=False)
    for a, b, now in zip(first, online, model.policy.q_net_target.parameters(), strict=True):
        torch.testing.assert_close(now, 0.75 * a + 0.25 * b)


N = 4
TOOLS = ("brighten", "dim", "invert", "nearest_x4")


def restoring() -> DRQN:
    env = VecMonitor(RestoreVecEnv(N, images=photographs(), toolbox=pixelwise_toolbox(super_resolver=True)))
    return DRQN(RestoreQPolicy, env, train_freq=1, target_update_interval=40, **{**SMALL, "learning_starts": 12})


def test_the_exported_agent_makes_the_policys_every_choice(tmp_path: Path) -> None:
    model = restoring().learn(60)
    assert isinstance(model.policy, RestoreQPolicy)
    save_policy(model.policy.to_agent(TOOLS), tmp_path / "agent.safetensors")
    agent = load_policy(tmp_path / "agent.safetensors")
    assert agent.kind == "q"
    env = model.get_env()
    assert env is not None
    env.seed(7)
    observation = env.reset()
    ours: Any = None
    theirs: Any = None
    start = np.ones(N, dtype=bool)
    for _ in range(8):
        assert isinstance(observation, dict)
        yours, theirs = model.predict(observation, theirs, start, deterministic=True)
        channels_last = {**observation, "image": observation["image"].transpose(0, 2, 3, 1)}
        mine, ours = agent.predict(channels_last, ours, start)
        assert mine.tolist() == yours.tolist()
        np.testing.assert_allclose(ours[0], theirs[0], atol=1e-5)
        observation, _, start, _ = env.step(mine)
    assert isinstance(model.replay_buffer, EpisodeReplayBuffer)
    assert model.replay_buffer._episodes[0].observations["image"].dtype == np.uint8


def test_an_agent_can_be_taken_up_again() -> None:
    policy = restoring().policy
    assert isinstance(policy, RestoreQPolicy)
    agent = RecurrentAgent(TOOLS, "q")
    policy.load_agent(agent)
    exported = policy.to_agent(TOOLS).state_dict()
    assert all(torch.equal(value, exported[key]) for key, value in agent.state_dict().items())
    both = (policy.q_net.state_dict(), policy.q_net_target.state_dict())
    assert all(torch.equal(value, both[1][key]) for key, value in both[0].items())


def test_what_does_not_fit_is_refused() -> None:
    masks = spaces.Dict({"seen": spaces.Box(0, 1, (2,)), "action_mask": spaces.MultiBinary(3)})
    with pytest.raises(ValueError, match=r"\(4,\)"):
        MultiInputLstmPolicy(masks, spaces.Discrete(4), lambda _: 1e-3)
    with pytest.raises(ValueError, match="counted from 0"):
        EpisodeReplayBuffer(10, masks, spaces.Discrete(4, start=1))
    with pytest.raises(ValueError, match="1 or more"):
        EpisodeReplayBuffer(10, masks, spaces.Discrete(4), sequence_length=0)
    env = RestoreVecEnv(1, images=photographs(), toolbox=pixelwise_toolbox())
    policy = DRQN(RestoreQPolicy, env, policy_kwargs={"net_arch": [8]}, **SMALL).policy
    assert isinstance(policy, RestoreQPolicy)
    with pytest.raises(ValueError, match="one linear layer"):
        policy.to_agent(("brighten", "dim", "invert"))
