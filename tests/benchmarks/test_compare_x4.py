"""The comparison of x4 super-resolvers and toolchains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from agents.policies.heuristics import FixedChain
from agents.rollout import draw_starts, play
from benchmarks.compare import __main__ as compare
from benchmarks.compare.distortions import distortion_of
from benchmarks.compare.figures import hardest_crop
from benchmarks.compare.methods import Setting, make_method
from benchmarks.compare.metrics import metrics_of
from benchmarks.compare.photographs import draw_photographs, play_photographs
from benchmarks.compare.upscaling import ThenUpscale, UpscalingRequired
from restore_env import Task
from restore_env.images.decoding import read_image
from sr_models.prior.semantic_prior import SHIPPED
from tests.support.toolkit import photographs, pixelwise_toolbox

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    Image.fromarray(photographs(1, 260, 261)[0]).save(folder / "a.png")
    return folder


def test_the_task_of_super_resolution(large: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    crops, numbers = tmp_path / "crops.png", tmp_path / "numbers.json"
    words = ["--task", "x4", "--images", str(large), "--photographs", "--crops", str(crops), "--json", str(numbers)]
    own = ["--methods", "bicubic", "sed", "sed_psnr", "--weights", f"sed={SHIPPED / 'sed' / 'psnr.safetensors'}"]
    assert compare.main([*words, *own]) == 0
    printed = capsys.readouterr()
    assert "**clean**" in printed.out
    assert "against bicubic" in printed.out
    assert "| PSNR (Y), dB (95 %) | SSIM (Y) (95 %) | perceptual distance (95 %) |" in printed.out
    lines = {line["name"]: line for line in json.loads(numbers.read_text())["severities"]["clean"]}
    assert lines["sed"]["estimates"] == lines["sed_psnr"]["estimates"]
    assert read_image(crops).pixels.shape[1] > 300


class TestMetricsOfSuperResolution:
    def test_borders_do_not_count_and_results_are_rounded(self) -> None:
        target = torch.from_numpy(photographs(1, 60, 70)[0]).permute(2, 0, 1)[None] / 255
        framed = target + 0.4 / 255
        framed[..., :4, :], framed[..., -4:, :], framed[..., :4], framed[..., -4:] = 0, 1, 0, 1
        found = {name: float(metric(framed, target)) for name, metric in metrics_of(4).items()}
        perfect = {"psnr_y": 100, "ssim_y": 1, "distance": 0, "ssimulacra2": 100, "flip": 0}
        assert found == pytest.approx({name: perfect[name] for name in found}, abs=1e-6)
        assert {"psnr_y", "ssim_y", "distance"} <= set(found)

    def test_y_weighs_green_most(self) -> None:
        target = torch.full((1, 3, 40, 40), 100 / 255)
        scores = []
        for channel in range(3):
            changed = target.clone()
            changed[:, channel] += 20 / 255
            scores.append(float(metrics_of(4)["psnr_y"](changed, target)))
        assert scores[1] < scores[0] < scores[2]
        assert scores[1] == pytest.approx(-20 * np.log10(20 * 128.553 / 255**2), abs=0.01)


def test_the_hardest_crop_lies_on_the_grid_and_inside(large: Path) -> None:
    start = next(draw_photographs(Task(images=large, upscale=(4,), **distortion_of("clean")), 4, seed=0))
    start.target[100:200, 80:180] ^= np.random.default_rng(0).integers(0, 128, (100, 100, 3), dtype=np.uint8)
    rows, columns = hardest_crop(start)
    assert rows.start % 4 == columns.start % 4 == 0
    assert abs(rows.start - 102) <= 4
    assert abs(columns.start - 82) <= 4


def test_toolchains_for_x4_upscale_by_the_named_super_resolver(large: Path) -> None:
    task = Task(images=large, upscale=(4,), max_steps=4)
    starts = draw_starts(task, 1, 0)
    for name, slot in (("default_sed", "sed"), ("default_sft_gan", "sft_gan")):
        method = make_method(name, Setting(factor=4))
        chain = [*method.toolbox.names, "stop"]
        taken = [chain[action] for action in method.play(task, starts).actions[0]]
        assert taken.count(slot) == 1
        assert not {"sed", "sft_gan"} - {slot} & set(chain)
    agent = make_method("default", Setting(factor=4))
    photograph = next(draw_photographs(task, 4, seed=0))
    [actions] = play_photographs(agent, task, [photograph]).actions
    assert {"sed", "sft_gan"} & {(*agent.toolbox.names, "stop")[action] for action in actions}


def test_a_super_resolver_follows_a_policy_without_one(large: Path) -> None:
    toolbox = pixelwise_toolbox(super_resolver=True)
    task = Task(images=large, upscale=(4,), max_steps=4, toolbox=toolbox)
    starts = draw_starts(task, 2, 0)
    for chain, expected in (((), (3, 4)), ((0,), (0, 3, 4)), ((0, 1, 0), (0, 1, 0, 3))):
        policy = ThenUpscale(FixedChain(chain, 3), toolbox)
        assert play(policy, task, starts).actions == (expected, expected)


class Preferring:
    """A policy that prefers its actions in this order, at every step."""

    kind = "logits"

    def __init__(self, *order: int) -> None:
        self.preference = np.argsort(order).astype(np.float32)

    def scores(self, observation: Any, state: Any = None, episode_start: Any = None) -> tuple[Any, Any]:
        return np.where(observation["action_mask"], -self.preference, -np.inf), state

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> Any:
        return self.scores(observation)[0].argmax(axis=1), state


def test_a_policy_with_a_super_resolver_must_use_it(large: Path) -> None:
    toolbox = pixelwise_toolbox(super_resolver=True)
    task = Task(images=large, upscale=(4,), max_steps=4, toolbox=toolbox)
    starts = draw_starts(task, 2, 0)
    for order, expected in (((4, 0, 1, 2, 3), (3, 4)), ((0, 4, 1, 2, 3), (0, 0, 3, 4)), ((3, 4, 0, 1, 2), (3, 4))):
        assert play(UpscalingRequired(Preferring(*order), toolbox), task, starts).actions == (expected, expected)
    assert play(Preferring(4, 0, 1, 2, 3), task, starts).actions == ((4,), (4,))  # left to itself it stops at once
