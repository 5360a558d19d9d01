"""Encoders, their pretraining and their use in imitation learning."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents.agent import Observation, RecurrentAgent, load_policy, save_policy
from agents.encoders import ENCODERS, EncoderName, SpectralEncoder
from agents.imitation.demonstrations import Demonstrations, demonstrate
from agents.imitation.imitation import SPREAD, imitate, learn_from_oracle, pretrain_encoder
from restore_env.distortions.protocol import gaussian_blur, gaussian_noise, jpeg, quantize
from restore_env.episodes.spectrum import spectrum
from restore_env.task import Task
from restore_env.toolbox import FunctionTool, Toolbox, bicubic_upscale
from tests.support.toolkit import photographs, pixelwise_toolbox

NAMES = ("brighten", "dim", "invert")
every_encoder = pytest.mark.parametrize("encoder", ENCODERS)


def task() -> Task:
    return Task(toolbox=pixelwise_toolbox(), images=photographs(1))


def patches(*images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


@every_encoder
def test_pretraining_changes_only_the_encoder(encoder: EncoderName) -> None:
    agent = RecurrentAgent(NAMES, encoder=encoder)
    before = {name: value.clone() for name, value in agent.state_dict().items()}
    pretrain_encoder(agent, task(), 0.01, 0)
    changed = {name for name, value in agent.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.startswith("extractor.features.")}


@every_encoder
def test_a_calibrated_encoder_is_frozen_during_imitation(encoder: EncoderName) -> None:
    agent = RecurrentAgent(NAMES, encoder=encoder)
    pretrain_encoder(agent, task(), 1e-6, seed=0)
    demonstrations = demonstrate(task(), 1e-6, seed=0)
    before = {name: value.clone() for name, value in agent.state_dict().items()}
    imitate(agent, demonstrations, 0.05, seed=0)
    changed = {name for name, value in agent.state_dict().items() if not torch.equal(value, before[name])}
    network = {name for name in before if name.startswith("extractor.features.")}
    assert changed == (before.keys() - network if encoder == "spectral" else before.keys())


def test_imitation_with_a_frozen_encoder_learns_the_best_tool() -> None:
    """Of smooth patches one tool is the best, of noisy ones another."""
    rng = np.random.default_rng(0)
    noisy = rng.random(64) < 0.5
    images = np.full((64, 1, 63, 63, 3), 128, np.uint8)
    images[noisy] = rng.integers(0, 256, images[noisy].shape, np.uint8)
    rewards = np.tile(np.array([0.2, 0.0, -9.0, 0.0], np.float32), (64, 1, 1))
    rewards[noisy, :, :2] = [0.0, 0.2]
    demonstrations = Demonstrations(images, np.full((64, 1), 4), np.ones((64, 1, 4), bool), rewards)
    torch.manual_seed(0)
    agent = RecurrentAgent(NAMES, encoder="spectral")
    network = agent.extractor.features
    assert isinstance(network, SpectralEncoder)
    network.calibrated.fill_(True)
    observation: Observation = {
        "image": images[:, 0],
        "last_action": demonstrations.last_actions[:, 0],
        "action_mask": demonstrations.masks[:, 0],
    }
    for _ in range(8):  # a slow machine may need more than one call
        imitate(agent, demonstrations, 1.5, seed=0, learning_rate=1e-2)
        if np.array_equal(agent.predict(observation)[0], noisy):
            return
    pytest.fail("the best tool was not learned")


def test_the_spectrum_separates_blur_noise_and_jpeg() -> None:
    squares = np.random.default_rng(1).integers(0, 2, (32, 32, 1)).repeat(2, axis=0).repeat(2, axis=1).repeat(3, axis=2)
    texture = (100 + 40 * squares[:63, :63]).astype(np.uint8)
    image = texture.astype(np.float32) / np.float32(255)
    blurred = quantize(gaussian_blur(image, 3.0))
    noised = quantize(gaussian_noise(image, 30.0, np.random.default_rng(0)))
    mean, deviation, missing = spectrum(patches(texture, blurred, noised, jpeg(noised, 10))).chunk(3, dim=1)
    high = torch.arange(64).reshape(8, 8)[4:, 4:].flatten()
    usual, blur, noise, compressed = missing[:, high].mean(1)
    assert blur > usual > noise
    assert compressed > noise + 0.2
    assert mean[2, high].mean() > mean[0, high].mean() > mean[1, high].mean()
    assert deviation[3, high].mean() > deviation[2, high].mean()  # some windows have lost them, others not


def test_calibration_normalizes_and_is_saved_with_the_weights(tmp_path: Path) -> None:
    images = torch.rand(100, 3, 63, 63, generator=torch.Generator().manual_seed(0))
    agent = RecurrentAgent(NAMES, encoder="spectral")
    network = agent.extractor.features
    assert isinstance(network, SpectralEncoder)
    network.calibrate(images)
    seen = (spectrum(images) - network.feature_mean) / network.feature_std
    torch.testing.assert_close(seen.mean(0), torch.zeros(192), atol=1e-3, rtol=0)
    assert seen.std(0).max() < 1.01
    save_policy(agent, tmp_path / "agent.safetensors")
    kept = load_policy(tmp_path / "agent.safetensors")
    assert kept.extractor.encoder == "spectral"
    with torch.no_grad():
        torch.testing.assert_close(kept.extractor.features(images), network(images), atol=0, rtol=0)


def test_deviations_are_clamped() -> None:
    network = SpectralEncoder()
    network.calibrate(torch.rand(100, 3, 63, 63, generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        usual = spectrum(torch.ones(1, 3, 63, 63)).sub(network.feature_mean).div(network.feature_std)
        assert usual.abs().max() > 20
        features = network(torch.ones(1, 3, 63, 63))
        network.feature_std.mul_(usual.abs().clamp(min=network.max_deviation)[0] / network.max_deviation)
        torch.testing.assert_close(features, network(torch.ones(1, 3, 63, 63)))


def textured_and_grey() -> tuple[Task, Task]:
    """Tasks of a textured and of a grey photograph."""
    rng = np.random.default_rng(0)
    textured, grey = rng.integers(0, 256, (80, 80, 3), np.uint8), np.full((80, 80, 3), 128, np.uint8)
    first, second = (dataclasses.replace(task(), images=[image], severity="single") for image in (textured, grey))
    return first, second


def calibrated_mean(agent: RecurrentAgent) -> float:
    """Mean log magnitude that the encoder was calibrated to."""
    network = agent.extractor.features
    assert isinstance(network, SpectralEncoder)
    return float(network.feature_mean[:64].mean())


def test_extra_tasks_with_known_strengths_are_used_for_pretraining() -> None:
    textured, grey = textured_and_grey()
    unknown = dataclasses.replace(textured, distortion="tests.support.toolkit:inverted")
    alone, both = (RecurrentAgent(NAMES, encoder="spectral") for _ in range(2))
    learn_from_oracle(alone, textured, 1e-6, 0, pretrained=False, extra_tasks=[(unknown, 0.5)])
    learn_from_oracle(both, textured, 1e-6, 0, pretrained=False, extra_tasks=[(grey, 0.9), (unknown, 0.1)])
    assert calibrated_mean(alone) - 1 > calibrated_mean(both)


def test_half_precision_leaves_the_spectrum_as_it_is() -> None:
    images = patches(photographs(1, 63, 63)[0])
    with torch.autocast("cpu", torch.bfloat16):
        half = spectrum(images)
    assert torch.equal(half, spectrum(images))


def upscaling_task(**arguments: Any) -> Task:
    chosen = {"images": photographs(), "toolbox": pixelwise_toolbox(super_resolver=True)}
    return Task(**{**chosen, **arguments})


@pytest.fixture(autouse=True)
def few_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.imitation.demonstrations.EPISODES", 8)


def test_demonstrations_hold_what_super_resolvers_would_pay() -> None:
    demonstrations = demonstrate(upscaling_task(upscale=(1, 4)), 1e-6, seed=0)
    upscaling = demonstrations.masks[:, 0, 3]
    assert set(upscaling.tolist()) == {True, False}
    assert (demonstrations.rewards[:, 0, 3] != 0)[upscaling].all()
    assert (demonstrations.rewards[..., 3][~demonstrations.masks[..., 3]] == 0).all()
    assert demonstrations.masks[:, :, :3].all()


def test_demonstrations_of_several_tasks_are_shared_out() -> None:
    """Pixels of black photographs tell which task an episode is of."""
    black = [np.zeros((80, 80, 3), np.uint8)]
    tasks = [
        upscaling_task(images=black, upscale=(1,), severity="single"),
        upscaling_task(images=black, upscale=(1,), distortion="tests.support.toolkit:inverted"),
    ]
    demonstrations = demonstrate(tasks[0], 0.5, seed=0, extra_tasks=[(tasks[1], 0.5)])
    inverted = (demonstrations.images[:, 0] == 255).all(axis=(1, 2, 3))
    assert 0.1 < inverted.mean() < 0.9
    assert demonstrate(tasks[0], 1e-6, seed=0, extra_tasks=[(tasks[1], 1.0)]).images[:, 0].min() == 255
    with pytest.raises(ValueError, match=r"must not exceed 1 together, got 1\.2"):
        demonstrate(tasks[0], 1e-6, seed=0, extra_tasks=[(tasks[1], 0.7), (tasks[1], 0.5)])


def test_the_spread_is_that_of_the_allowed_tools() -> None:
    masks = np.array([[[True, True, True, True], [True, True, False, True]]])
    rewards = np.array([[[1.0, 3.0, 5.0, 99.0], [2.0, 4.0, 77.0, 99.0]]], np.float32)
    demonstrations = Demonstrations(np.zeros((1, 2, 63, 63, 3), np.uint8), np.zeros((1, 2), np.int64), masks, rewards)
    assert demonstrations.reward_std == pytest.approx((np.std([1, 3, 5]) + np.std([2, 4])) / 2)


def test_small_rewards_teach_as_much_as_large_ones() -> None:
    demonstrations = demonstrate(upscaling_task(upscale=(4,)), 1e-6, seed=1)
    states = []
    for factor in (1.0, 1e-3):
        torch.manual_seed(0)
        agent = RecurrentAgent((*NAMES, "nearest_x4"))
        scaled = dataclasses.replace(demonstrations, rewards=demonstrations.rewards * np.float32(factor))
        unit = scaled.reward_std / SPREAD
        imitate(agent, scaled, 1e-6, seed=0, unit=unit)  # a step
        states.append(agent.head.weight.clone())
    torch.testing.assert_close(*states)


def gentle() -> Toolbox:
    """A clear best choice in either task: a tool that undoes the damage, and a super-resolver that beats bicubic."""

    def upscale(images: torch.Tensor) -> torch.Tensor:
        return bicubic_upscale(images).clamp(0.2, 0.8)

    return Toolbox(
        [
            FunctionTool("up", lambda images: images + 0.2),
            FunctionTool("down", lambda images: images - 0.2),
            FunctionTool("four", upscale, scale=4),
        ]
    )


@pytest.mark.parametrize(("kind", "reward"), [("logits", "tests.support.toolkit:softened"), ("q", "psnr")])
def test_imitation_copes_with_both_tasks_and_any_reward(kind: Any, reward: str) -> None:
    torch.manual_seed(0)
    agent = RecurrentAgent(gentle().names, kind)
    before = agent.head.weight.clone()
    learn_from_oracle(agent, upscaling_task(toolbox=gentle(), reward=reward), 0.5, seed=0, pretrained=True)
    assert not torch.equal(agent.head.weight, before)
    assert all(bool(torch.isfinite(parameter).all()) for parameter in agent.parameters())
