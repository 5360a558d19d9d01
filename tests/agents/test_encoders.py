"""How agents look at patches, and how they learn to."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from agents.agent import Observation, PolicyError, RecurrentAgent, load_policy, save_policy
from agents.encoders import ENCODERS, EncoderName, SpectralEncoder
from agents.imitation.demonstrations import Demonstrations, demonstrate
from agents.imitation.imitation import imitate, learn_from_oracle, pretrain_encoder
from restore_env.distortions.protocol import gaussian_blur, gaussian_noise, jpeg, quantize
from restore_env.task import Task
from tests.support.toolkit import photographs, pixelwise_toolbox
from tools_zoo.weight_files import read_weights, write_weights

NAMES = ("brighten", "dim", "invert")
every_way = pytest.mark.parametrize("encoder", ENCODERS)


def task() -> Task:
    return Task(toolbox=pixelwise_toolbox(), images=photographs(1))


def patches(*images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


@every_way
def test_learning_to_see_moves_the_eyes_alone(encoder: EncoderName) -> None:
    agent = RecurrentAgent(NAMES, encoder=encoder)
    before = {name: value.clone() for name, value in agent.state_dict().items()}
    pretrain_encoder(agent, task(), 0.01, 0)
    changed = {name for name, value in agent.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.startswith("extractor.features.")}


@every_way
def test_settled_eyes_stay_as_they_are_while_choices_are_learnt(encoder: EncoderName) -> None:
    agent = RecurrentAgent(NAMES, encoder=encoder)
    pretrain_encoder(agent, task(), 1e-6, seed=0)
    shown = demonstrate(task(), 1e-6, seed=0)
    before = {name: value.clone() for name, value in agent.state_dict().items()}
    imitate(agent, shown, 0.05, seed=0)
    changed = {name for name, value in agent.state_dict().items() if not torch.equal(value, before[name])}
    eyes = {name for name in before if name.startswith("extractor.features.")}
    assert changed == (before.keys() - eyes if encoder == "spectral" else before.keys())


def test_what_pays_by_the_look_of_a_patch_is_learnt_with_settled_eyes() -> None:
    """Of smooth patches one tool is the best, of noisy ones another."""
    rng = np.random.default_rng(0)
    noisy = rng.random(64) < 0.5
    images = np.full((64, 1, 63, 63, 3), 128, np.uint8)
    images[noisy] = rng.integers(0, 256, images[noisy].shape, np.uint8)
    rewards = np.tile(np.array([0.2, 0.0, -9.0, 0.0], np.float32), (64, 1, 1))
    rewards[noisy, :, :2] = [0.0, 0.2]
    shown = Demonstrations(images, np.full((64, 1), 4), np.ones((64, 1, 4), bool), rewards)
    torch.manual_seed(0)
    agent = RecurrentAgent(NAMES, encoder="spectral")
    eyes = agent.extractor.features
    assert isinstance(eyes, SpectralEncoder)
    eyes.calibrated.fill_(True)
    observation: Observation = {
        "image": images[:, 0],
        "last_action": shown.last_actions[:, 0],
        "action_mask": shown.masks[:, 0],
    }
    for _ in range(8):  # a slow machine may need more than one go
        imitate(agent, shown, 1.5, seed=0, learning_rate=1e-2)
        if np.array_equal(agent.predict(observation)[0], noisy):
            return
    pytest.fail("the tool that pays was not learnt")


def test_the_spectrum_tells_blur_noise_and_jpeg() -> None:
    squares = np.random.default_rng(1).integers(0, 2, (32, 32, 1)).repeat(2, axis=0).repeat(2, axis=1).repeat(3, axis=2)
    texture = (100 + 40 * squares[:63, :63]).astype(np.uint8)
    image = texture.astype(np.float32) / np.float32(255)
    eyes = SpectralEncoder()
    blurred = quantize(gaussian_blur(image, 3.0))
    noised = quantize(gaussian_noise(image, 30.0, np.random.default_rng(0)))
    mean, deviation, missing = eyes.spectrum(patches(texture, blurred, noised, jpeg(noised, 10))).chunk(3, dim=1)
    high = torch.arange(64).reshape(8, 8)[4:, 4:].flatten()
    usual, blur, noise, compressed = missing[:, high].mean(1)
    assert blur > usual > noise
    assert compressed > noise + 0.2
    assert mean[2, high].mean() > mean[0, high].mean() > mean[1, high].mean()
    assert deviation[3, high].mean() > deviation[2, high].mean()  # some windows have lost them, others not


def test_one_grey_has_no_frequency_but_the_first() -> None:
    missing = SpectralEncoder().spectrum(torch.full((1, 3, 63, 63), 0.25)).chunk(3, dim=1)[2][0]
    assert missing[0] < 1e-6
    assert missing[1:].min() > 0.999


def test_what_eyes_are_accustomed_to_is_zero_to_them_and_is_kept_with_the_weights(tmp_path: Path) -> None:
    images = torch.rand(100, 3, 63, 63, generator=torch.Generator().manual_seed(0))
    agent = RecurrentAgent(NAMES, encoder="spectral")
    eyes = agent.extractor.features
    assert isinstance(eyes, SpectralEncoder)
    eyes.calibrate(images)
    seen = (eyes.spectrum(images) - eyes.feature_mean) / eyes.feature_std
    torch.testing.assert_close(seen.mean(0), torch.zeros(192), atol=1e-3, rtol=0)
    assert seen.std(0).max() < 1.01
    save_policy(agent, tmp_path / "agent.safetensors")
    kept = load_policy(tmp_path / "agent.safetensors")
    assert kept.extractor.encoder == "spectral"
    with torch.no_grad():
        torch.testing.assert_close(kept.extractor.features(images), eyes(images), atol=0, rtol=0)


def test_a_patch_of_one_colour_does_not_carry_eyes_away() -> None:
    eyes = SpectralEncoder()
    eyes.calibrate(torch.rand(100, 3, 63, 63, generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        usual = eyes.spectrum(torch.ones(1, 3, 63, 63)).sub(eyes.feature_mean).div(eyes.feature_std)
        assert usual.abs().max() > 20
        told = eyes(torch.ones(1, 3, 63, 63))
        eyes.feature_std.mul_(usual.abs().clamp(min=eyes.max_deviation)[0] / eyes.max_deviation)
        torch.testing.assert_close(told, eyes(torch.ones(1, 3, 63, 63)))


def beside_grey() -> tuple[Task, Task]:
    """Of a textured photograph, and of a grey one."""
    rng = np.random.default_rng(0)
    textured, grey = rng.integers(0, 256, (80, 80, 3), np.uint8), np.full((80, 80, 3), 128, np.uint8)
    first, second = (dataclasses.replace(task(), images=[image], severity="single") for image in (textured, grey))
    return first, second


def usual(agent: RecurrentAgent) -> float:
    """How strong the frequencies are that the agent's eyes are accustomed to."""
    eyes = agent.extractor.features
    assert isinstance(eyes, SpectralEncoder)
    return float(eyes.feature_mean[:64].mean())


def test_eyes_are_shown_the_tasks_beside_too() -> None:
    textured, grey = beside_grey()
    seen = []
    for share in (0.0, 0.5, 1.0):
        agent = RecurrentAgent(NAMES, encoder="spectral")
        pretrain_encoder(agent, textured, 1e-6, 0, extra_tasks=[(grey, share)])
        seen.append(usual(agent))
    assert seen[0] - 1 > seen[2]
    assert seen[0] > seen[1] > seen[2]


def test_a_lesson_lets_eyes_see_the_tasks_beside_whose_strengths_are_known() -> None:
    textured, grey = beside_grey()
    unknown = dataclasses.replace(textured, distortion="tests.support.toolkit:inverted")
    alone, both = (RecurrentAgent(NAMES, encoder="spectral") for _ in range(2))
    learn_from_oracle(alone, textured, 1e-6, 0, pretrained=False, extra_tasks=[(unknown, 0.5)])
    learn_from_oracle(both, textured, 1e-6, 0, pretrained=False, extra_tasks=[(grey, 0.9), (unknown, 0.1)])
    assert usual(alone) - 1 > usual(both)


def test_half_precision_leaves_the_spectrum_as_it_is() -> None:
    images = patches(photographs(1, 63, 63)[0])
    eyes = SpectralEncoder()
    with torch.autocast("cpu", torch.bfloat16):
        half = eyes.spectrum(images)
    assert torch.equal(half, eyes.spectrum(images))


def test_a_policy_of_an_unknown_vision_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "agent.safetensors"
    save_policy(RecurrentAgent(NAMES), path)
    state, metadata = read_weights(path, PolicyError)
    write_weights(path, dict(state), {**metadata, "encoder": "infrared"})
    with pytest.raises(PolicyError, match=r"not a policy .*encoder"):
        load_policy(path)


def test_settled_eyes_look_at_a_demonstration_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    forward = SpectralEncoder.forward

    def counting(self: SpectralEncoder, images: torch.Tensor) -> torch.Tensor:
        looks.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(SpectralEncoder, "forward", counting)
    shown = demonstrate(dataclasses.replace(task(), max_steps=2), 1e-6, seed=0)
    for calibrated in (True, False):
        agent = RecurrentAgent(NAMES, encoder="spectral")
        if calibrated:
            pretrain_encoder(agent, task(), 1e-6, seed=0)
        looks.clear()
        imitate(agent, shown, 0.2, seed=0, batch_size=8)
        assert (looks == [2 * len(shown)]) == calibrated
