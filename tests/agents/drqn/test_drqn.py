"""The DRQN learns, obeys masks, is saved, and becomes an agent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import EvalCallback, StopTrainingOnMaxEpisodes, StopTrainingOnRewardThreshold
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from agents.drqn.buffers import EpisodeReplayBuffer
from agents.drqn.drqn import DRQN
from agents.drqn.policies import MultiInputLstmPolicy, RecurrentQPolicy, RestoreQPolicy
from agents.sb3_env import RestoreVecEnv
from tests.support.recall import SMALL, Recall, recalling
from tests.support.toolkit import photographs, pixelwise_toolbox

pytestmark = pytest.mark.usefixtures("one_thread")


class Forbidding(gym.Env[Any, np.int64]):
    """Raises on an action that is forbidden; which ones are changes with every step. Truncated after 5 steps."""

    action_space = spaces.Discrete(4)
    observation_space = spaces.Dict({"count": spaces.Box(0, 255, (2,), np.uint8), "action_mask": spaces.MultiBinary(4)})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return self._observe(), {}

    def step(self, action: np.int64) -> Any:
        if not self.mask[action]:
            raise ValueError(f"action {action} is forbidden")
        self.steps += 1
        return self._observe(), float(action), False, self.steps == 5, {}

    def _observe(self) -> Any:
        self.mask = np.zeros(4, np.int8)
        self.mask[self.np_random.choice(4, 2, replace=False)] = 1
        return {"count": np.array([self.steps, 7], np.uint8), "action_mask": self.mask.copy()}


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


def test_a_cue_is_remembered() -> None:
    model = recalling().learn(4000)
    gain, _ = evaluate_policy(model, make_vec_env(Recall, 8, seed=99), n_eval_episodes=200)
    assert isinstance(gain, float)
    assert 0.95 <= gain <= 1.0


def test_forbidden_actions_are_never_played() -> None:
    env = VecMonitor(DummyVecEnv([Forbidding] * 3))
    model = DRQN(
        "MultiInputLstmPolicy", env, exploration_fraction=0.5, target_update_interval=50, train_freq=1, **SMALL
    )
    model.learn(300)
    assert model._n_updates > 0
    assert model.exploration_rate == pytest.approx(0.1)
    batch = model.replay_buffer.sample(8) if model.replay_buffer else None
    assert batch is not None
    assert batch.action_masks[batch.observed].sum(dim=1).eq(2).all()
    assert batch.observed.sum(dim=1).eq(6).all()  # also what follows the time limit
    env.close()


def test_masks_hold_even_against_the_values() -> None:
    model = DRQN("MultiInputLstmPolicy", DummyVecEnv([Forbidding]), **SMALL)
    head = model.policy.q_net.head[-1]
    assert isinstance(head, torch.nn.Linear)
    with torch.no_grad():
        head.bias[:] = torch.tensor([9.0, 8.0, 7.0, 6.0])
    mask = np.array([[0, 0, 1, 1], [1, 1, 1, 1]], np.int8)
    observation = {"count": np.zeros((2, 2), np.uint8), "action_mask": mask}
    assert model.predict(observation, deterministic=True)[0].tolist() == [2, 0]
    drawn = [model.predict(observation)[0] for _ in range(60)]
    assert {int(actions[0]) for actions in drawn} == {2, 3}
    assert {int(actions[1]) for actions in drawn} == {0, 1, 2, 3}
    alone = {key: value[0] for key, value in observation.items()}
    action, _ = model.predict(alone, deterministic=True)
    assert action.shape == ()
    assert action == 2


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
    assert model.replay_buffer._episodes[0].observations[0]["observation"].dtype == np.uint8


def test_a_seed_decides_everything() -> None:
    first, again, other = (recalling(seed).learn(480) for seed in (3, 3, 4))
    pairs = [
        [torch.equal(a, b) for a, b in zip(first.policy.parameters(), model.policy.parameters(), strict=True)]
        for model in (again, other)
    ]
    assert all(pairs[0])
    assert not all(pairs[1])


def test_a_saved_model_predicts_the_same_and_goes_on(tmp_path: Path) -> None:
    model = recalling().learn(480)
    model.save(tmp_path / "model")
    assert model.replay_buffer is not None
    model.save_replay_buffer(tmp_path / "replay")
    loaded = DRQN.load(tmp_path / "model", env=make_vec_env(Recall, 8, seed=1), device="cpu")
    assert loaded.exploration_rate == model.exploration_rate
    rng, states = np.random.default_rng(0), [None, None]
    for t in range(4):
        observation, start = rng.normal(size=(8, 3)).astype(np.float32), np.full(8, t == 0)
        played: Any = [
            one.predict(observation, state, start, deterministic=True)
            for one, state in zip((model, loaded), states, strict=True)
        ]
        assert played[0][0].tolist() == played[1][0].tolist()
        states = [state for _, state in played]
        assert np.array_equal(played[0][1][0], played[1][1][0])
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
    model.policy.save(str(tmp_path / "policy.pt"))
    policy = RecurrentQPolicy.load(str(tmp_path / "policy.pt"), device="cpu")
    observation = rng.normal(size=(8, 3)).astype(np.float32)
    expected = model.policy.predict(observation, deterministic=True)[0]
    assert policy.predict(observation, deterministic=True)[0].tolist() == expected.tolist()


def test_callbacks_and_the_log(tmp_path: Path) -> None:
    model = recalling()
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


def test_the_target_network_follows_at_its_interval() -> None:
    model = recalling()
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


def test_what_does_not_fit_is_refused() -> None:
    masks = spaces.Dict({"count": spaces.Box(0, 1, (2,)), "action_mask": spaces.MultiBinary(3)})
    with pytest.raises(ValueError, match=r"\(4,\)"):
        MultiInputLstmPolicy(masks, spaces.Discrete(4), lambda _: 1e-3)
    with pytest.raises(ValueError, match="counted from 0"):
        EpisodeReplayBuffer(10, masks, spaces.Discrete(4, start=1))
    with pytest.raises(ValueError, match="1 or more"):
        EpisodeReplayBuffer(0, masks, spaces.Discrete(4))
    env = RestoreVecEnv(1, images=photographs(), toolbox=pixelwise_toolbox())
    policy = DRQN(RestoreQPolicy, env, policy_kwargs={"net_arch": [8]}, **SMALL).policy
    assert isinstance(policy, RestoreQPolicy)
    with pytest.raises(ValueError, match="one linear layer"):
        policy.to_agent(("brighten", "dim", "invert"))
