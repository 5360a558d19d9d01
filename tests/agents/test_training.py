from __future__ import annotations

import dataclasses
import inspect
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from gymnasium.utils.env_checker import data_equivalence as same
from sb3_contrib import RecurrentPPO
from stable_baselines3 import DQN
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor
from torch import nn

import agents.training.algorithms
from agents.agent import PolicyError, RecurrentAgent, load_policy, save_policy
from agents.cli import main
from agents.drqn.drqn import DRQN
from agents.encoders import CompactEncoder
from agents.features_extractor import AgentPolicy
from agents.imitation.imitation import ImitationTraining, train_imitation
from agents.ppo.policies import MaskedRecurrentPolicy
from agents.rollout import EpisodeResults, play
from agents.sb3_env import RestoreVecEnv
from agents.training.agent import train_agent
from agents.training.algorithms import ALGORITHMS, AlgorithmName
from agents.training.settings import AgentTraining
from restore_env import ImageRestoreEnv
from restore_env.toolbox import FunctionTool, Toolbox
from tests.support.toolkit import photographs, pixelwise_toolbox, pixelwise_tools

N, NAMES = 4, ("brighten", "dim", "invert")
SMALL: dict[AlgorithmName, dict[str, int]] = {
    "ppo": {"n_steps": 6, "batch_size": 24, "n_epochs": 1},
    "drqn": {"learning_starts": 16, "gradient_steps": 1, "batch_size": 8},
}
each_algorithm = pytest.mark.parametrize("algorithm", SMALL)


def arguments(**changes: Any) -> dict[str, Any]:
    return {"images": photographs(), "toolbox": pixelwise_toolbox(super_resolver=True), "upscale": (1, 4), **changes}


def test_the_adapter_equals_dummy_vec_env() -> None:
    ours = RestoreVecEnv(N, **arguments())
    theirs = DummyVecEnv([lambda: ImageRestoreEnv(**arguments())] * N)
    ours.seed(3)
    theirs.seed(3)
    assert same(dict(ours.reset()), dict(theirs.reset()))  # type: ignore[arg-type]
    assert same(ours.reset_infos, theirs.reset_infos)
    rng = np.random.default_rng(0)
    for _ in range(15):
        actions = rng.integers(0, 5, N)
        (obs, rewards, dones, infos), (obs2, rewards2, dones2, infos2) = ours.step(actions), theirs.step(actions)
        assert same(dict(obs), dict(obs2))  # type: ignore[arg-type]
        assert same(rewards, rewards2)
        assert same(dones, dones2)
        assert same(infos, infos2)
        assert same(ours.reset_infos, theirs.reset_infos)


@pytest.fixture(scope="module")
def model() -> RecurrentPPO:
    env = VecMonitor(RestoreVecEnv(N, **arguments()))
    return RecurrentPPO(MaskedRecurrentPolicy, env, n_steps=6, batch_size=12, n_epochs=1, seed=0)


def test_the_policy_learns_and_never_picks_a_forbidden_action(model: RecurrentPPO) -> None:
    model.learn(48)
    buffer = model.rollout_buffer
    masks = buffer.observations["action_mask"].reshape(-1, 5)
    actions = buffer.actions.reshape(-1).astype(int)
    assert (masks == 0).any()
    assert masks[np.arange(len(actions)), actions].all()
    with torch.no_grad():
        assert all(bool(torch.isfinite(p).all()) for p in model.policy.parameters())


def test_masks_hold_against_high_logits(model: RecurrentPPO) -> None:
    policy = model.policy
    assert isinstance(policy, MaskedRecurrentPolicy)
    head, env = policy.action_net, model.get_env()
    assert isinstance(head, torch.nn.Linear)
    assert env is not None
    before = head.bias.detach().clone()
    with torch.no_grad():
        head.bias[3] = 50.0
    observation = env.reset()
    assert isinstance(observation, dict)
    observation["action_mask"][:] = [1, 1, 1, 0, 1]
    chosen, _ = model.predict(observation, deterministic=False)
    assert 3 not in chosen
    observation["action_mask"][:] = 1
    chosen, _ = model.predict(observation, deterministic=False)
    assert set(chosen.tolist()) == {3}
    with torch.no_grad():
        head.bias.copy_(before)


@each_algorithm
def test_the_exported_agent_makes_the_policys_every_choice(algorithm: AlgorithmName, tmp_path: Path) -> None:
    vector_env = VecMonitor(RestoreVecEnv(N, **arguments()))
    values = {**ALGORITHMS[algorithm].hyperparameters(), **SMALL[algorithm]}
    trained = ALGORITHMS[algorithm].build(values, vector_env, lambda: 0.0, 0, torch.device("cpu"), "published")
    trained.learn(48)
    assert isinstance(trained.policy, AgentPolicy)
    save_policy(trained.policy.to_agent((*NAMES, "nearest_x4")), tmp_path / "agent.safetensors")
    agent = load_policy(tmp_path / "agent.safetensors")
    assert agent.kind == ("logits" if algorithm == "ppo" else "q")
    vector_env.seed(7)
    observation: Any = vector_env.reset()
    ours: Any = None
    theirs: Any = None
    start = np.ones(N, dtype=bool)
    for _ in range(8):
        mine, ours = agent.predict(observation, ours, start)
        transposed = {**observation, "image": observation["image"].transpose(0, 3, 1, 2)}
        yours, theirs = trained.predict(transposed, theirs, start, deterministic=True)
        assert mine.tolist() == yours.tolist()
        np.testing.assert_allclose(ours[0], theirs[0], atol=1e-5)
        observation, _, start, _ = vector_env.step(mine)


def settings(out: Path, steps: int, algorithm: AlgorithmName = "ppo", **changes: Any) -> AgentTraining:
    return AgentTraining(
        out=out,
        steps=steps,
        images=photographs(),
        toolbox=pixelwise_toolbox(),
        algorithm=algorithm,
        envs=8,
        hyperparameters=SMALL[algorithm],
        **changes,
    )


@each_algorithm
def test_a_warm_start_learns_from_the_oracle(
    algorithm: AlgorithmName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.training.run.VALIDATION_EPISODES", 32)
    monkeypatch.setattr("agents.imitation.warm_start.BUILDING_SHARE", 0.0)

    def imitate(settings: ImitationTraining, *others: Any) -> Any:  # as far on a slow machine as on a fast one
        return train_imitation(dataclasses.replace(settings, minutes=None, steps=50, learning_rate=0.003), *others)

    monkeypatch.setattr("agents.imitation.warm_start.train_imitation", imitate)
    mean = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    smooth = FunctionTool("smooth", mean, macs_per_pixel=9, receptive_radius=1)
    cold = dataclasses.replace(
        settings(tmp_path / "cold", 48, algorithm, severity="moderate"), toolbox=Toolbox([*pixelwise_tools(), smooth])
    )
    _, before = train_agent(cold)
    _, after = train_agent(dataclasses.replace(cold, out=tmp_path / "warm", warm_start=0.2))
    assert after.validation_gain > max(before.validation_gain, 0) + 1  # better than doing nothing, too
    assert "after imitation of the best chains. Task" in (tmp_path / "warm" / "README.md").read_text()


def test_a_run_that_beats_neither_its_start_nor_a_constant_chain_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    worse = itertools.count(1)

    def play_worse(*arguments: Any) -> EpisodeResults:
        results = play(*arguments)
        return dataclasses.replace(results, returns=results.returns - 100 * next(worse))

    monkeypatch.setattr("agents.training.run.VALIDATION_EPISODES", 4)
    monkeypatch.setattr("agents.training.run.play", play_worse)
    toolbox = "tests.support.toolkit:pixelwise_toolbox"
    assert main(["train", "agent", "--toolbox", toolbox, "--steps", "8", "--out", str(tmp_path)]) == 0
    (note,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Note: ")]
    assert "did not beat its start, no training (random weights)" in note
    assert "does not beat the constant chain" in note
    card = (tmp_path / "README.md").read_text()
    assert "| algorithm | no training (random weights) |" in card
    assert note in card
    assert "imitation" not in card


@each_algorithm
def test_the_normalized_encoder_of_a_warm_start_is_saved_and_resumed(
    algorithm: AlgorithmName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.training.run.VALIDATION_EPISODES", 4)
    warm = dataclasses.replace(settings(tmp_path, 48, algorithm), warm_start=0.05, encoder="compact")
    monkeypatch.setattr("agents.imitation.warm_start.LEVELS", 8)
    train_agent(dataclasses.replace(warm, precision="bf16"))
    network = load_policy(tmp_path / "agent.safetensors").extractor.features
    assert isinstance(network, CompactEncoder)
    assert not torch.equal(network.number_mean, CompactEncoder().number_mean)
    _, progress = train_agent(dataclasses.replace(warm, precision="bf16", steps=96))
    assert progress.steps == 96


@each_algorithm
def test_training_writes_a_policy_and_resumes_as_its_seed_says(
    algorithm: AlgorithmName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.training.run.VALIDATION_EPISODES", 4)
    _, progress = train_agent(settings(tmp_path, 48, algorithm))
    assert progress.steps == 48
    first = load_policy(tmp_path / "agent.safetensors")
    assert first.tools == ("brighten", "dim", "invert")
    assert first.recipe["steps"] == 48
    assert first.recipe["algorithm"] == ALGORITHMS[algorithm].name
    _, progress = train_agent(settings(tmp_path, 96, algorithm))
    assert progress.steps == 96
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["policy"]
    head = saved["action_net.weight" if algorithm == "ppo" else "q_net.head.0.weight"]
    assert not torch.equal(first.head.weight, head)
    for steps in (48, 96):
        train_agent(settings(tmp_path / "again", steps, algorithm))
    again = torch.load(tmp_path / "again" / "checkpoint.pt", weights_only=True)["policy"]
    assert all(torch.equal(value, again[key]) for key, value in saved.items())
    _, repeated = train_agent(settings(tmp_path, 96, algorithm))
    assert repeated.steps == 96
    with pytest.raises(PolicyError, match="seed 0, not 5"):
        train_agent(dataclasses.replace(settings(tmp_path, 144, algorithm), seed=5))
    other: AlgorithmName = "drqn" if algorithm == "ppo" else "ppo"
    with pytest.raises(PolicyError, match=f"algorithm {ALGORITHMS[algorithm].name}, not {ALGORITHMS[other].name}"):
        train_agent(settings(tmp_path, 144, other))
    (tmp_path / "checkpoint.pt").write_bytes(b"nonsense")
    with pytest.raises(PolicyError, match=r"checkpoint\.pt: damaged"):
        train_agent(settings(tmp_path, 144, algorithm))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_hyperparameters_are_those_that_rl_zoo3_reads(name: AlgorithmName) -> None:
    algorithm = ALGORITHMS[name]
    text = (Path(agents.__file__).parent / "hyperparameters" / algorithm.file).read_text()
    row = yaml.safe_load(text)["ImageRestore-v0"]
    assert row["policy"] == f"{algorithm.policy.__module__}.{algorithm.policy.__name__}"
    accepted = {*inspect.signature({"ppo": RecurrentPPO, "drqn": DRQN}[name]).parameters}
    accepted |= {*inspect.signature(DQN).parameters} if name == "drqn" else set()
    assert row.keys() - {"n_envs", "n_timesteps"} <= accepted
    values = algorithm.hyperparameters()
    assert values["learning_rate"] == float(row["learning_rate"].removeprefix("lin_"))
    assert algorithm.hyperparameters(n_envs=3) == {**values, "n_envs": 3}
    with pytest.raises(TypeError, match="temperature"):
        algorithm.hyperparameters(temperature=1.0)


@each_algorithm
def test_training_starts_from_an_agent_without_super_resolvers(
    algorithm: AlgorithmName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.training.run.VALIDATION_EPISODES", 4)
    monkeypatch.setattr("agents.imitation.warm_start.LEVELS", 8)
    init = tmp_path / "small.safetensors"
    save_policy(RecurrentAgent(NAMES, encoder="compact"), init)
    training = dataclasses.replace(
        settings(tmp_path / "run", 24, algorithm),
        toolbox=pixelwise_toolbox(super_resolver=True),
        upscale=(1, 4),
        reward="tests.support.toolkit:softened",
        init=str(init),
        warm_start=0.01,
    )
    agent, progress = train_agent(training)
    assert agent.tools == (*NAMES, "nearest_x4")
    assert agent.extractor.encoder == "compact"
    assert agent.recipe["upscale"] == [1, 4]
    assert agent.recipe["reward"] == "tests.support.toolkit:softened"
    assert agent.recipe["validation_return"] == pytest.approx(progress.validation_gain, abs=1e-3)
    card = (tmp_path / "run" / "README.md").read_text()
    assert "severity, of the same size and x4; the reward is the gain in tests.support.toolkit:softened" in card
    other = dataclasses.replace(training, reward="ssim")
    with pytest.raises(PolicyError, match=r"reward tests\.support\.toolkit:softened, not ssim"):
        train_agent(other)
