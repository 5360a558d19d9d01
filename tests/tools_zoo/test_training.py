from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from agents.cli import main
from benchmarks.baselines import train as train_baseline
from restore_env.distortions.crop import Crop
from restore_env.distortions.device import distort_crops
from restore_env.distortions.protocol import Levels, draw_levels
from restore_env.images.sources import ImageSource, open_images
from restore_env.patches import PatchSampler
from tests.support.toolkit import photographs
from tools_zoo import load_toolbox
from tools_zoo.catalog import KINDS, SPECS, TOOLS, ToolSpec, tools_of
from tools_zoo.networks import ThreeLayer
from tools_zoo.toolboxes import ToolboxError, ToolWeights, read_tool, update_toolbox
from tools_zoo.training.losses import LOSSES, Batch, psnr_loss, restoring, squared_error
from tools_zoo.training.runs import INPUT, OUTPUT, Validation
from tools_zoo.training.settings import NetworkTraining
from tools_zoo.training.tools import ToolTraining, draw_band, draw_strongest, train_tools
from tools_zoo.training.trainer import Progress, TrainingError, TrainingResult, train_network


class KilledError(Exception):
    pass


def source() -> ImageSource:
    opened = open_images(photographs(2, 120, 140), min_size=16)
    assert isinstance(opened, ImageSource)
    return opened


def settings(out: Path, steps: int | None = 30, **changes: object) -> ToolTraining:
    base = ToolTraining(
        out=out, steps=steps, tools=("denoise_2",), batch_size=2, patch_size=16, optimizer="adam", warmup_steps=60
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def kill_at(step: int) -> Callable[[Progress], None]:
    def report(now: Progress) -> None:
        if now.step >= step:
            raise KilledError

    return report


def states(*folders: Path) -> list[dict[str, torch.Tensor]]:
    return [dict(read_tool(folder / "denoise_2.safetensors", "three_layer").state) for folder in folders]


@pytest.mark.parametrize("draws", ["host", "device"])
def test_a_run_that_was_killed_ends_as_one_that_was_not(
    draws: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools_zoo.training.trainer.CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr("tools_zoo.training.trainer.REPORT_SECONDS", -1.0)
    train_tools(settings(tmp_path / "whole", draws=draws), source())
    for step in (3, 17):
        with pytest.raises(KilledError):
            train_tools(settings(tmp_path / "killed", draws=draws), source(), kill_at(step))
    assert not (tmp_path / "killed" / "denoise_2.safetensors").exists()
    train_tools(settings(tmp_path / "killed", draws=draws), source())
    whole, killed = states(tmp_path / "whole", tmp_path / "killed")
    assert all(torch.equal(value, killed[key]) for key, value in whole.items())


def test_a_network_with_dropout_resumes_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools_zoo.training.trainer.CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr("tools_zoo.training.trainer.REPORT_SECONDS", -1.0)

    def train(out: str, report: Callable[[Progress], None] = lambda _: None) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 1), torch.nn.Dropout(0.5), torch.nn.Conv2d(8, 3, 1))
        return train_network(
            NetworkTraining(out=tmp_path / out, steps=4),
            "network",
            network,
            lambda step: torch.full((1, 3, 4, 4), step / 2),
            lambda batch: network(batch).square().mean(),
            Validation(lambda: {"psnr/output": 1.0}, 60.0),
            report=report,
        )[0].state

    whole = train("whole")
    with pytest.raises(KilledError):
        train("killed", kill_at(2))
    assert all(torch.equal(value, whole[key]) for key, value in train("killed").items())


def test_a_card_says_where_validation_is_on_photographs_that_were_not_trained_on(tmp_path: Path) -> None:
    many = open_images(photographs(25, 40, 40), min_size=16)
    assert isinstance(many, ImageSource)
    for name, images in (("few", source()), ("many", many)):
        train_tools(settings(tmp_path / name, steps=2, command="imagerestore train"), images)
    cards = [" ".join((tmp_path / name / "README.md").read_text().split()) for name in ("few", "many")]
    assert ["photographs that were not trained on" in card for card in cards] == [False, True]
    assert "training images, adam, psnr" in cards[0]


def test_training_improves_on_the_input_and_documents_itself(tmp_path: Path) -> None:
    seen: list[Progress] = []
    train_tools(settings(tmp_path, steps=400, patch_size=32), source(), seen.append)
    assert seen[-1].metrics[OUTPUT] > seen[-1].metrics[INPUT] + 1
    assert seen[-1].step == seen[-1].total == 400
    toolbox = load_toolbox(tmp_path)
    assert toolbox.names == ("denoise_2",)
    recipe = read_tool(tmp_path / "denoise_2.safetensors", "three_layer").recipe
    assert recipe["steps"] == 400
    assert recipe["psnr_output"] > recipe["psnr_input"]
    card = (tmp_path / "README.md").read_text()
    assert "denoise_2" in card
    assert "| 400 |" in card
    assert list((tmp_path / "logs" / "denoise_2").glob("events*"))


def test_another_run_in_the_same_folder_is_refused_and_a_longer_one_goes_on(tmp_path: Path) -> None:
    for seed in (0, 1):
        train_tools(settings(tmp_path / f"from{seed}", steps=2, seed=seed), source())
    chosen = settings(tmp_path / "out", steps=2, init=str(tmp_path / "from0"))
    train_tools(chosen, source())
    others = {"seed 0, not 7": {"seed": 7}, r"learning_rate 0\.002, not 1\.0": {"learning_rate": 1.0}}
    for message, changes in (others | {"start": {"init": str(tmp_path / "from1")}}).items():
        with pytest.raises(TrainingError, match=f"made with {message}"):
            train_tools(dataclasses.replace(chosen, **changes), source())  # type: ignore[arg-type]
    assert train_tools(dataclasses.replace(chosen, steps=5), source())["denoise_2"].steps == 5
    checkpoint = tmp_path / "out" / "checkpoints" / "denoise_2.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(TrainingError, match=r"denoise_2\.pt: damaged"):
        train_tools(chosen, source())


def test_children_start_from_their_parents(tmp_path: Path) -> None:
    train_tools(settings(tmp_path, steps=3, tools=("denoise_1", "denoise_2")), source())
    assert load_toolbox(tmp_path).names == ("denoise_1", "denoise_2")  # trained the other way round
    recipes = [read_tool(tmp_path / f"denoise_{number}.safetensors", "three_layer").recipe for number in (1, 2)]
    assert [recipe["started_from"] for recipe in recipes] == ["denoise_2", "random weights"]


def batch(step: int) -> Batch:
    rng = np.random.default_rng(step)
    targets = rng.integers(0, 256, (2, 12, 12, 3), dtype=np.uint8)
    return 255 - targets, targets


def test_a_run_ends_on_the_clock_of_a_busy_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("tools_zoo.training.trainer.time.monotonic", lambda: clock[0])
    network = ThreeLayer()
    learn = restoring(network, squared_error)

    def objective(pairs: Batch) -> torch.Tensor:
        clock[0] += 30 if 200 < clock[0] - 1000 < 340 else 1
        return learn(pairs)

    rates: list[float] = []

    def note(now: Progress) -> None:
        rates.append(now.learning_rate)

    def run() -> TrainingResult:
        chosen = NetworkTraining(out=tmp_path, minutes=10, warmup_steps=60)
        return train_network(chosen, "run", network, batch, objective, Validation(dict, 1e9), report=note)[0]

    result = run()
    assert 0.9 * 600 < result.seconds < 1.1 * 600
    top = rates.index(max(rates))
    assert top > 50
    assert rates == [*sorted(rates[:top]), *sorted(rates[top:], reverse=True)]
    assert rates[-1] < 0.05 * max(rates)
    assert run().steps == result.steps  # nothing is left to do


def test_the_psnr_loss_falls_where_psnr_rises_whatever_the_level() -> None:
    targets = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))

    def loss(*levels: float) -> float:
        return float(psnr_loss(targets + noise * torch.tensor(levels)[:, None, None, None], targets))

    assert loss(0.05, 0.1, 0.1) - loss(0.1, 0.1, 0.1) == pytest.approx(
        loss(0.1, 0.1, 0.2) - loss(0.1, 0.1, 0.4), rel=0.02
    )
    assert loss(0.05, 0.1, 0.1) < loss(0.1, 0.1, 0.1)
    assert np.isfinite(loss(0.0, 0.0, 0.0))


def test_both_losses_pull_alike_at_25_db() -> None:
    targets = torch.zeros(1, 3, 4, 4)
    outputs = torch.full_like(targets, 10 ** (-25 / 20)).requires_grad_()
    one, other = (torch.autograd.grad(loss(outputs, targets), outputs)[0] for loss in LOSSES.values())
    assert torch.allclose(one, other, rtol=0.03)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_levels_lie_in_the_tools_band(spec: ToolSpec) -> None:
    rng, index = np.random.default_rng(0), ("blur", "noise", "jpeg").index(spec.kind)
    for slight in (False, True):
        for _ in range(30):
            levels = draw_band(spec, rng, slight)
            values = (levels.blur_sigma, levels.noise_sigma, levels.jpeg_quality)
            assert spec.low <= values[index] <= spec.high
            assert slight or sum(value > 0 for value in values) == 1


@pytest.mark.parametrize("severity", ["any", "mixed"])
@pytest.mark.parametrize("spec", TOOLS, ids=lambda spec: spec.name)
def test_tools_share_mixtures_by_their_strongest_part(spec: ToolSpec, severity: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        drawn = draw_strongest(spec, severity, rng)
        assert drawn.strengths[KINDS.index(spec.kind)] == max(drawn.strengths)
        if isinstance(drawn, Levels):
            own = {"blur": drawn.blur_sigma, "noise": drawn.noise_sigma, "jpeg": drawn.jpeg_quality}[spec.kind]
            assert spec.low <= own <= spec.high


def test_a_mixture_without_the_tools_part_is_refused() -> None:
    with pytest.raises(ValueError, match="mixture 'clean' has no distortion for denoise_2"):
        draw_strongest(SPECS["denoise_2"], "clean", np.random.default_rng(0))


def test_samples_are_pairs_of_the_same_place() -> None:
    sampler = PatchSampler(source(), [0, 1], 16, lambda rng: draw_band(SPECS["denoise_1"], rng))
    inputs, targets = (torch.as_tensor(side).float() for side in sampler.batch(np.random.default_rng(0), 40))
    assert (inputs - targets).abs().mean() < 8
    with pytest.raises(ValueError, match="no image is as large"):
        PatchSampler(source(), [0], 500, lambda rng: draw_band(SPECS["denoise_1"], rng))


class TestDrawsOnADevice:
    @pytest.mark.parametrize("factor", [1, 4])
    def test_a_patch_is_the_one_that_the_host_draws(self, factor: int) -> None:
        levels = Levels(blur_sigma=1.5, jpeg_quality=60)  # noise is another field of the same law
        host, device = (PatchSampler(source(), [0, 1], 16, lambda rng: levels, factor, at) for at in (None, "cpu"))
        for seed in range(12):
            (theirs, clean), (ours, same) = (one.batch(np.random.default_rng(seed), 1) for one in (host, device))
            assert torch.equal(torch.as_tensor(clean), torch.as_tensor(same))
            off = (torch.as_tensor(ours).int() - torch.as_tensor(theirs).int()).abs().float().mean()
            assert off < 2 < (torch.as_tensor(ours).int() - torch.as_tensor(theirs).flip(2).int()).abs().float().mean()

    def test_patches_do_not_depend_on_which_are_drawn_together(self) -> None:
        sampler = PatchSampler(source(), [0, 1], 16, lambda rng: draw_levels("moderate", rng), device="cpu")
        together, one_by_one = np.random.default_rng(3), np.random.default_rng(3)
        batch, alone = sampler.batch(together, 20), [sampler.batch(one_by_one, 1) for _ in range(20)]
        for side, parts in zip(batch, zip(*alone, strict=True), strict=True):
            assert torch.equal(torch.as_tensor(side), torch.cat([torch.as_tensor(part) for part in parts]))

    def test_every_training_draws_where_it_is_asked_to(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        drawn: list[int] = []

        def distort(crops: Sequence[Crop], *rest: Any) -> torch.Tensor:
            drawn.append(len(crops))
            return distort_crops(crops, *rest)

        monkeypatch.setattr("restore_env.patches.distort_crops", distort)
        photo = tmp_path / "photo.png"
        Image.fromarray(photographs(1, 120, 140)[0]).save(photo)
        words = ["--images", str(photo), "--steps", "1", "--batch-size", "3", "--patch-size", "16"]
        joint = ["joint", "--toolbox", "pure", "--chain", "denoise_1"]
        trainings: dict[str, tuple[Callable[[list[str]], int], list[str]]] = {
            "tools": (main, ["train", "tools", "--tools", "denoise_2"]),
            "joint": (main, ["train", *joint]),
            "baseline": (train_baseline.main, ["vdsr_s"]),
        }
        for name, (train, first) in trainings.items():
            for draws, drawn_here in (("host", set()), ("device", {3})):
                drawn.clear()
                assert train([*first, *words, "--draws", draws, "--out", str(tmp_path / name / draws)]) == 0
                assert set(drawn) == drawn_here

    def test_another_place_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="draws must be one of host, device, got 'gpu'"):
            train_tools(settings(tmp_path, draws="gpu"), source())


UNKNOWN_NETWORK = '{"tools": [{"name": "denoise_2", "network": "nine_layer"}]}'


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("denoise_2.safetensors", None, r"denoise_2\.safetensors: no such file"),
        ("denoise_2.safetensors", lambda data: data[:2000], r"denoise_2\.safetensors: not a readable"),
        ("toolbox.json", lambda data: data.replace(b"three_layer", b"eight_layer"), "another architecture"),
        ("toolbox.json", None, "no toolbox"),
        *[("toolbox.json", lambda _, text=text: text, r"toolbox\.json") for text in (b"", b"{}", b'{"tools": []}')],
        ("toolbox.json", lambda _: b'{"tools": [{"name": 1}]}', r"toolbox\.json"),
        ("toolbox.json", lambda _: UNKNOWN_NETWORK.encode(), "unknown network 'nine_layer'"),
    ],
)
def test_a_toolbox_that_cannot_be_loaded_is_named(
    file: str, change: Callable[[bytes], bytes] | None, message: str, tmp_path: Path
) -> None:
    path = update_toolbox(tmp_path, [ToolWeights("denoise_2", "three_layer", ThreeLayer().state_dict())]) / file
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ToolboxError, match=message):
        load_toolbox(tmp_path)


def test_the_tools_of_a_distortion_are_those_of_its_parts_the_strongest_first() -> None:
    assert [spec.name for spec in tools_of(Levels(2.0, 40.0, 50).strengths)] == ["denoise_4", "deblur_2", "dejpeg_2"]
    assert [spec.name for spec in tools_of(Levels(noise_sigma=3.0).strengths)] == ["denoise_1"]
    assert tools_of(Levels().strengths) == []
    for spec in TOOLS:
        rng = np.random.default_rng(TOOLS.index(spec))
        assert tools_of(draw_band(spec, rng).strengths) == [spec]


def test_a_batch_says_what_its_distortions_are() -> None:
    sampler = PatchSampler(source(), [0, 1], 16, partial(draw_levels, "any"))
    inputs, _, drawn = sampler.described_batch(np.random.default_rng(4), 12)
    assert np.array_equal(inputs, sampler.batch(np.random.default_rng(4), 12)[0])
    assert len({levels.strengths for levels in drawn}) == 12
    on_device = PatchSampler(source(), [0, 1], 16, partial(draw_levels, "any"), device="cpu")
    assert on_device.described_batch(np.random.default_rng(4), 1)[2] == drawn[:1]
