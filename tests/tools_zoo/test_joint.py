from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from agents.policies.heuristics import FixedChain
from restore_env.distortions.protocol import Levels, draw_levels
from restore_env.metrics import psnr
from restore_env.patches import PatchSampler
from tests.support.three_tools import NAMES, STOP, chain, networks, settings, weights
from tests.support.toolkit import source
from tools_zoo import load_toolbox
from tools_zoo.catalog import SPECS, TOOLS
from tools_zoo.networks import ThreeLayer
from tools_zoo.toolboxes import ToolWeights, read_tool, update_toolbox
from tools_zoo.training.joint import FOLLOW, VALIDATION_PATCHES, ToolChains, chains_of, train_jointly
from tools_zoo.training.losses import as_tensor
from tools_zoo.training.runs import OUTPUT
from tools_zoo.training.trainer import Progress, TrainingError


class KilledError(Exception):
    pass


def test_chains_are_those_of_the_toolbox() -> None:
    chains = ToolChains(networks(), FixedChain((1, 0), STOP), 3)
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        expected = chains.networks["deblur_1"](chains.networks["denoise_2"](images))
        assert torch.allclose(chains(images), expected, atol=1e-6)
        explored = np.array([[FOLLOW, 2, FOLLOW], [STOP, FOLLOW, FOLLOW]])
        result = chains(images, explored)
        first = chains.networks["dejpeg_1"](chains.networks["denoise_2"](images[:1]))
    assert torch.allclose(result[:1], first, atol=1e-6)
    assert torch.equal(result[1:], images[1:])  # stopped at once, and stays stopped
    assert chains.uses.tolist() == [0, 1, 1]


def test_intermediate_images_are_what_shorter_chains_make() -> None:
    chains = ToolChains(networks(), FixedChain((1, 2, 0), STOP), 3)
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        for length, image in enumerate(chains.steps(images), 1):
            assert torch.equal(image, ToolChains(networks(), FixedChain((1, 2, 0), STOP), length)(images))


def test_with_intermediate_losses_a_prefix_of_the_chain_learns_to_restore_by_itself(tmp_path: Path) -> None:
    """The second tool undoes what the first one does, so only the intermediate image asks the first one to restore."""

    def gain(intermediate_weight: float) -> float:
        chosen = settings(
            tmp_path,
            f"out-{intermediate_weight}",
            steps=120,
            batch_size=4,
            intermediate_weight=intermediate_weight,
        )
        train_jointly(chosen, source(), FixedChain((1, 2), STOP))
        first = ThreeLayer()
        first.load_state_dict(weights(chosen.out, "denoise_2"))
        sampler = PatchSampler(source(), [0, 1], 20, partial(draw_levels, "moderate"))
        inputs, targets = (as_tensor(side) for side in sampler.batch(np.random.default_rng(5), 32))
        with torch.no_grad():
            return float((psnr(first(inputs), targets) - psnr(inputs, targets)).mean())

    assert gain(1.0) > gain(0.0)


def test_a_tools_gradient_is_the_mean_over_its_uses() -> None:
    class Alternating:
        """The first image: tool 0 twice; the others: tool 1 once."""

        def predict(
            self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
        ) -> tuple[npt.NDArray[np.int64], Any]:
            step = state or 0
            actions = np.full(len(observation["image"]), STOP if step else 1)
            actions[0] = 0
            return actions, step + 1

    images, targets = torch.rand(4, 3, 12, 12), torch.rand(4, 3, 12, 12)
    chains = ToolChains(networks(), Alternating(), 2)
    torch.nn.functional.mse_loss(chains(images), targets).backward()  # type: ignore[no-untyped-call]
    assert chains.uses.tolist() == [2, 3, 0]

    alone = networks()
    twice = alone["deblur_1"](alone["deblur_1"](images[:1]))
    ((twice - targets[:1]) ** 2).mean().backward()
    ((alone["denoise_2"](images[1:]) - targets[1:]) ** 2).mean().backward()
    for name, uses in (("deblur_1", 2), ("denoise_2", 1)):
        for ours, theirs in zip(chains.networks[name].parameters(), alone[name].parameters(), strict=True):
            assert ours.grad is not None
            assert theirs.grad is not None
            assert torch.allclose(ours.grad, theirs.grad / uses, atol=1e-6)
    assert all(parameter.grad is None for parameter in chains.networks["dejpeg_1"].parameters())


def test_used_tools_learn_and_an_unused_one_keeps_its_weights(tmp_path: Path) -> None:
    seen: list[Progress] = []
    chosen = settings(tmp_path, steps=150, batch_size=4)
    train_jointly(chosen, source(), FixedChain((1, 2), STOP), report=seen.append)
    assert seen[-1].metrics[OUTPUT] > seen[0].metrics[OUTPUT] + 0.1
    for name, changed in (("deblur_1", False), ("denoise_2", True), ("dejpeg_1", True)):
        before, after = weights(chosen.folder, name), weights(chosen.out, name)
        assert changed != all(torch.equal(before[key], after[key]) for key in before), name
    assert load_toolbox(chosen.out).names == NAMES
    recipe = read_tool(chosen.out / "denoise_2.safetensors", "three_layer").recipe
    assert recipe["steps"] == 150
    assert "joint" not in read_tool(chosen.out / "deblur_1.safetensors", "three_layer").recipe
    assert "joint" in (chosen.out / "README.md").read_text()


def test_a_run_that_was_killed_ends_as_one_that_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools_zoo.training.trainer.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("tools_zoo.training.trainer.REPORT_SECONDS", 0.0)
    chosen = settings(tmp_path, exploration=0.5, rounds=2)
    train_jointly(chosen, source(), FixedChain((1, 2), STOP))
    for round_, step in (("round-1", 2), ("round-2", 3)):

        def kill(now: Progress, at: tuple[str, int] = (round_, step)) -> None:
            if (now.name, now.step) == at:
                raise KilledError

        with pytest.raises(KilledError):
            train_jointly(dataclasses.replace(chosen, out=tmp_path / "killed"), source(), chain(), report=kill)
    train_jointly(dataclasses.replace(chosen, out=tmp_path / "killed"), source(), chain())
    for name in NAMES:
        whole, killed = weights(chosen.out, name), weights(tmp_path / "killed", name)
        assert all(torch.equal(value, killed[key]) for key, value in whole.items())


def test_the_policy_is_refreshed_after_each_round(tmp_path: Path) -> None:
    asked: list[int] = []

    def refresh(tools: Any, number: int) -> FixedChain:
        asked.append(number)
        assert tools.names == NAMES
        return FixedChain((0,), STOP)

    chosen = settings(tmp_path, rounds=2)
    train_jointly(chosen, source(), FixedChain((1,), STOP), refresh)
    assert asked == [0, 1]
    for name in ("deblur_1", "denoise_2"):  # each used in one of the rounds
        assert not torch.equal(weights(chosen.folder, name)["conv3.weight"], weights(chosen.out, name)["conv3.weight"])


def test_the_patches_are_those_that_the_settings_ask_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saturated: list[tuple[int, ...]] = []
    drawn: dict[int, list[int]] = {}

    def curve(patch: Any, rng: np.random.Generator) -> Any:
        saturated.append(patch.shape)
        return np.arange(256, dtype=np.uint8)

    class Counting(PatchSampler):
        def described_batch(self, rng: np.random.Generator, count: int) -> Any:
            inputs, targets, levels = super().described_batch(rng, count)
            drawn.setdefault(count, []).extend(sum(part > 0 for part in one.strengths) for one in levels)
            return inputs, targets, levels

    monkeypatch.setattr("restore_env.distortions.saturation.saturation_curve", curve)
    monkeypatch.setattr("tools_zoo.training.joint.PatchSampler", Counting)
    for share, severity, most in ((0.0, "moderate", 3), (1.0, "single", 1)):
        drawn.clear()
        chosen = settings(tmp_path, f"out-{share}", severity=severity, saturation_prob=share, steps=2)
        train_jointly(chosen, source(), FixedChain((0,), STOP))
        assert sorted(drawn) == [2, VALIDATION_PATCHES]  # for training, for validation
        assert all(max(counts) == most for counts in drawn.values())
        assert (len(saturated) >= 2 * chosen.batch_size + VALIDATION_PATCHES) == bool(share)
        recipe = read_tool(chosen.out / f"{NAMES[0]}.safetensors", "three_layer").recipe
        assert (recipe["severity"], recipe["saturation_prob"]) == (severity, share)


def test_another_run_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    chosen = settings(tmp_path, rounds=2, steps=4)
    train_jointly(chosen, source(), chain())
    with pytest.raises(TrainingError, match=r"exploration 0\.0, not 0\.3"):
        train_jointly(dataclasses.replace(chosen, exploration=0.3), source(), chain())
    with pytest.raises(TrainingError, match=r"round-2\.pt: was made with start"):  # its first round has gone on
        train_jointly(dataclasses.replace(chosen, steps=12), source(), chain())
    torch.manual_seed(5)
    update_toolbox(chosen.folder, [ToolWeights("denoise_2", "three_layer", ThreeLayer().state_dict())])
    with pytest.raises(TrainingError, match=r"round-1\.pt: was made with start"):
        train_jointly(chosen, source(), chain())


def test_the_toolbox_to_start_from_is_not_overwritten(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="choose another folder"):
        settings(tmp_path, out="start")


def test_rounds_that_the_clock_ends_are_followed_by_the_next(tmp_path: Path) -> None:
    chosen = settings(tmp_path, rounds=3, steps=None, minutes=0.01)
    for _ in range(2):  # the second time nothing is left to do
        assert len(train_jointly(chosen, source(), chain())) == 3


def test_a_policy_that_stops_at_once_changes_nothing(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    train_jointly(chosen, source(), FixedChain((), STOP))
    before, after = (weights(folder, NAMES[0]) for folder in (chosen.folder, chosen.out))
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize(
    "changes",
    [
        {"severity": "awful"},
        {"exploration": 1.5},
        {"saturation_prob": -0.5},
        {"chain_length": 0},
        {"rounds": 0},
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        settings(tmp_path, **changes)


def all_tools(folder: Path) -> Path:
    """Twelve tools that return their input, ready to learn."""
    torch.manual_seed(0)
    tools = []
    for spec in TOOLS:
        network = ThreeLayer()
        torch.nn.init.zeros_(network.conv3.weight)
        tools.append(ToolWeights(spec.name, "three_layer", network.state_dict()))
    return update_toolbox(folder, tools)


def test_chains_of_the_distortion_train_the_tools_of_its_parts(tmp_path: Path) -> None:
    """Of two distortions, the one whose tool is frozen is not drawn."""
    chosen = settings(
        tmp_path,
        toolbox=str(all_tools(tmp_path / "twelve")),
        chains="distortion",
        chain_length=2,
        severity="single",
        frozen_tools=tuple(name for name in SPECS if not name.startswith("denoise")),
        steps=12,
    )
    refused = Forbidden()
    train_jointly(chosen, source(), refused)
    before, after = ({name: weights(at, name)["conv1.bias"] for name in SPECS} for at in (chosen.folder, chosen.out))
    changed = {name for name in SPECS if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("denoise") for name in changed)


class Forbidden:
    """A policy that nothing may ask."""

    def predict(self, *arguments: Any, **named: Any) -> Any:
        raise AssertionError("the policy was asked")


def test_the_last_tool_of_a_distortion_fills_the_chain() -> None:
    chains = ToolChains({name: ThreeLayer() for name in SPECS}, Forbidden(), 3)
    drawn = [Levels(noise_sigma=45.0), Levels(4.5, 20.0, 95)]
    assert chains_of(drawn, chains).tolist() == [[7, 7, 7], [3, 5, 8]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "chains of the distortion need the tool 'deblur_2'"),
        ({"severity": "clean"}, "severity 'clean' has no distortion for deblur_1"),
    ],
)
def test_chains_of_the_distortion_that_cannot_be(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    given = {"toolbox": str(all_tools(tmp_path / "twelve"))} if changes else {}
    with pytest.raises(ValueError, match=message):
        train_jointly(settings(tmp_path, chains="distortion", **given, **changes), source(), Forbidden())
