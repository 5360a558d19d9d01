"""What comes with the package: weights, their cards, and the first commands that a user types."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from PIL import Image

import agents.agent
import benchmarks.baselines.weights
import benchmarks.speed
import tools_zoo.toolboxes
from agents import Restorer, load_policy
from agents.agent import policy_of, save_policy
from agents.cli import main
from agents.policies.heuristics import FixedChain
from agents.rollout import draw_starts, play
from agents.training.settings import AgentTraining
from benchmarks.baselines.weights import as_tool, read_baseline
from benchmarks.compare.upscaling import UpscalingRequired
from benchmarks.contents import worst_lattice
from restore_env import Task
from restore_env.distortions.protocol import Levels, distort
from restore_env.images.decoding import read_image
from restore_env.images.sources import embedded_paths
from restore_env.images.tiling import to_tensor
from restore_env.metrics import psnr
from restore_env.resolve import task_factors, task_toolbox
from restore_env.sampling import EpisodeStart
from restore_env.toolbox import bicubic_upscale
from sr_models import load_super_resolver, with_super_resolvers
from sr_models.losses.perceptual import perceptual_quality
from sr_models.prior.semantic_prior import SHIPPED
from sr_models.super_resolver import BY_NAME, STAGES, SUPER_RESOLVERS, SuperResolverError
from sr_models.training.blind_distortion import DISTORTIONS
from tools_zoo import TOOLS, load_toolbox, toolbox_names
from tools_zoo.training.losses import as_tensor


@pytest.mark.parametrize("name", toolbox_names())
def test_a_shipped_toolbox_is_the_table_and_has_its_own_agent(name: str) -> None:
    toolbox = load_toolbox(name)
    assert toolbox.names == tuple(spec.name for spec in TOOLS)
    assert policy_of(name) == name
    assert Restorer(name).policy.tools == toolbox.names  # type: ignore[attr-defined]


def test_weights_are_small_and_have_cards_that_name_no_ones_folders() -> None:
    toolboxes = [tools_zoo.toolboxes.SHIPPED / name for name in toolbox_names()]
    folders = [*toolboxes, *(SHIPPED / name for name in BY_NAME)]
    for folder in (*folders, agents.agent.SHIPPED, benchmarks.baselines.weights.SHIPPED):
        assert (folder / "README.md").read_text().startswith("# ")
    for folder in toolboxes:
        card = (folder / "README.md").read_text()
        assert all(f"| {spec.name} |" in card for spec in TOOLS)
    everything = (tools_zoo.toolboxes.SHIPPED, agents.agent.SHIPPED, SHIPPED, benchmarks.baselines.weights.SHIPPED)
    for path in (path for folder in everything for path in folder.rglob("*") if path.is_file()):
        assert path.stat().st_size < 10_000_000, path
        assert not re.search(rb"/tmp/|/home/|/root/|/work/", path.read_bytes()), path


def test_a_folders_own_agent_belongs_to_its_toolbox(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="has no agent of its own"):
        assert policy_of(tmp_path) == "default"
    save_policy(load_policy("pure"), tmp_path / "agent.safetensors")
    assert policy_of(tmp_path) == tmp_path / "agent.safetensors"
    assert policy_of(load_toolbox()) == "default"
    assert policy_of("no.such:factory") == "default"


@pytest.mark.parametrize("levels", [Levels(jpeg_quality=30), Levels(noise_sigma=15.0)])
def test_photographs_with_one_distortion_gain_and_the_gain_is_predicted(levels: Levels) -> None:
    restorer = Restorer()
    real, predicted = [], []
    for number, path in enumerate(embedded_paths()[:4]):
        target = read_image(path).pixels[100:356, 100:356]
        result = restorer.restore(distort(target, levels, np.random.default_rng(number)), target)
        assert result.psnr_after is not None
        assert result.psnr_before is not None
        assert result.predicted_gain is not None
        real.append(result.psnr_after - result.psnr_before)
        predicted.append(result.predicted_gain)
    assert np.mean(real) > 0.5
    assert np.mean(predicted) == pytest.approx(np.mean(real), abs=1)


def test_the_default_policy_plays_the_default_environment_which_training_takes_too(tmp_path: Path) -> None:
    env: Any = gym.make("ImageRestore-v0")
    policy = load_policy()
    trained_on = AgentTraining(out=tmp_path, steps=1).task
    assert policy.tools == env.unwrapped.toolbox.names == task_toolbox(trained_on).names
    assert task_factors(trained_on) == task_factors(env.unwrapped.task) == (1, 4)
    own = {"toolbox", "device", "upscale"}
    same = [each.name for each in fields(Task) if each.name not in own]
    assert [getattr(trained_on, name) for name in same] == [getattr(env.unwrapped.task, name) for name in same]
    observation, _ = env.reset(seed=0)
    state, over = None, False
    while not over:
        action, state = policy.predict(observation, state)
        observation, _, over, _, info = env.step(action)
    assert info["psnr"] > info["initial_psnr"]


def test_the_default_agent_gains_where_images_keep_their_size() -> None:
    task, toolbox = Task(upscale=(1,), severity="moderate"), load_toolbox()
    starts = draw_starts(task, 64, seed=7)
    agent = play(load_policy(tools=toolbox.names), task, starts)
    single = max(play(FixedChain((action,), toolbox.stop), task, starts[:32]).gain for action in range(len(toolbox)))
    assert agent.gain > 1.5
    # on the same 32 patches, which are few; benchmarks.compare is certain
    assert (agent.psnr - agent.initial_psnr)[:32].mean() > single - 0.3


def sides(starts: list[EpisodeStart]) -> tuple[torch.Tensor, torch.Tensor]:
    """Distorted patches and targets, ``(N, 3, H, W)`` each."""
    return as_tensor(np.stack([one.distorted for one in starts])), as_tensor(np.stack([one.target for one in starts]))


@pytest.mark.parametrize("name", ["vdsr", "vdsr_s", "dncnn", "dncnn_s"])
def test_a_baseline_restores_and_its_card_says_how_well(name: str) -> None:
    folder = benchmarks.baselines.weights.SHIPPED
    weights = read_baseline(folder / f"{name}.safetensors", name)
    starts = draw_starts(Task(upscale=(1,), severity="moderate"), 32, seed=7)
    distorted, target = sides(starts)
    with torch.inference_mode():
        gain = psnr(as_tool(weights)(distorted), target).mean() - psnr(distorted, target).mean()
    assert gain > 2
    lines = (folder / "README.md").read_text().splitlines()
    row = next(line for line in lines if line.startswith(f"| {weights.baseline.title} |"))
    assert "| {psnr_input} | {psnr_start} | {psnr_output} |".format(**weights.recipe) in row


def test_the_upscaling_agent_is_ahead_of_bicubic_on_distorted_images() -> None:
    toolbox = with_super_resolvers(load_toolbox())
    task = Task(upscale=(4,), max_steps=4, toolbox=toolbox)
    starts = draw_starts(task, 12, seed=7)
    small, large = sides(starts)
    agent = play(UpscalingRequired(load_policy(), toolbox), task, starts)
    assert agent.psnr.mean() > float(psnr(bicubic_upscale(small), large).mean()) + 0.5


@pytest.mark.parametrize("name", SUPER_RESOLVERS)
def test_a_super_resolver_errs_less_in_one_stage_and_looks_better_in_the_other(name: str) -> None:
    fur = next(path for path in embedded_paths() if path.stem == "chelsea")
    target = read_image(fur).pixels[24:276, 99:351]
    small, large = to_tensor(DISTORTIONS["bicubic"](target, np.random.default_rng(0))), to_tensor(target)
    with torch.inference_mode():
        images = {stage: load_super_resolver(name, stage=stage)(small) for stage in STAGES}
        images["bicubic"] = bicubic_upscale(small)
    error = {stage: float(psnr(image, large)) for stage, image in images.items()}
    look = {stage: float(perceptual_quality(image, large)) for stage, image in images.items()}
    assert error["psnr"] > error["bicubic"] + 0.5
    assert error["gan"] > error["psnr"] - 3
    assert look["gan"] > look["psnr"] > look["bicubic"]


def test_the_light_super_resolver_has_the_psnr_stage_alone() -> None:
    fur = next(path for path in embedded_paths() if path.stem == "chelsea")
    target = read_image(fur).pixels[24:276, 99:351]
    small, large = to_tensor(DISTORTIONS["bicubic"](target, np.random.default_rng(0))), to_tensor(target)
    with torch.inference_mode():
        light, others = (
            load_super_resolver("light"),
            [load_super_resolver(name, stage="psnr") for name in SUPER_RESOLVERS],
        )
        assert float(psnr(light(small), large)) > max(float(psnr(other(small), large)) for other in others)
    assert light.macs_per_pixel < 400_000
    assert worst_lattice(light) < 0.5
    with pytest.raises(SuperResolverError, match=r"gan\.safetensors"):
        load_super_resolver("light", stage="gan")


def test_the_demo_gains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "-o", str(tmp_path / "demo")]) == 0
    printed = capsys.readouterr().out
    gain = float(printed.split("gain: ")[1].split(" dB")[0])
    assert gain > 2
    pictures = {path.stem for path in (tmp_path / "demo").iterdir()}
    assert pictures == {"input", "restored", "target", "chain"}
    assert read_image(tmp_path / "demo" / "chain.png").pixels.std() > 10


def test_the_demo_does_not_write_over_its_photograph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = tmp_path / "input.png"
    Image.fromarray(np.zeros((70, 70, 3), np.uint8)).save(photo)
    before = photo.read_bytes()
    assert main(["demo", "--photo", str(photo), "-o", str(tmp_path)]) == 2
    assert "input.png: is an input of this run and is not overwritten" in capsys.readouterr().err
    assert photo.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["input.png"]


@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea"])
def test_a_clean_photograph_is_not_ruined(name: str) -> None:
    photo = read_image(next(path for path in embedded_paths() if path.stem == name))
    result = Restorer().restore(photo, photo)
    assert result.psnr_after is not None
    assert result.psnr_after > 35


def test_throughput_prints_its_table(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["--envs", "2", "--seconds", "0.05", "--json", str(tmp_path / "t.json"), "--backend", "eager"]
    assert benchmarks.speed.main(arguments) == 0
    printed = capsys.readouterr().out
    for evaluated in (benchmarks.speed.BARE, benchmarks.speed.NATIVE, "SyncVectorEnv", "SB3 DummyVecEnv"):
        assert f"| {evaluated} | 2 |" in printed
    assert "tools run by eager" in printed
    rows = json.loads((tmp_path / "t.json").read_text())["rows"]
    assert all(row["steps_per_second"] > 0 for row in rows)
