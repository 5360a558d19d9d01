from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import sr_models.super_resolver
import sr_models.training.super_resolution as module
from agents.cli import main
from restore_env.distortions.crop import Crop
from restore_env.images.sources import ImageSource, open_images
from sr_models.extractors.squeezenet import SqueezeNet
from sr_models.losses.adversarial import ADVERSARIAL_LOSSES, category_loss
from sr_models.losses.perceptual import PerceptualLoss
from sr_models.prior.semantic_prior import SemanticPrior
from sr_models.super_resolver import GeneratorWeights, read_generator, write_generator
from sr_models.training.blind_distortion import DISTORTIONS
from sr_models.training.crops import SrPairSampler
from sr_models.training.gan import GAN, GANConfig, categories_of
from sr_models.training.settings import MODELS, SrTraining
from sr_models.training.super_resolution import FrozenNetworks, train_sr
from tests.support.networks import TINY_GENERATORS
from tests.support.toolkit import photographs
from tools_zoo.training.trainer import Progress, TrainingError

pytestmark = pytest.mark.usefixtures("one_thread")


class KilledError(Exception):
    pass


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in (module, sr_models.super_resolver):
        monkeypatch.setattr(place, "GENERATORS", TINY_GENERATORS)
    monkeypatch.setattr("sr_models.training.crops.CROPS", 2)
    monkeypatch.setattr(module, "VALIDATION_SIZE", 32)


@pytest.fixture(scope="module")
def frozen() -> FrozenNetworks:
    torch.manual_seed(0)
    prior, trunk = SemanticPrior(), SqueezeNet()
    return FrozenNetworks(prior, trunk, trunk, trunk)


def source() -> ImageSource:
    opened = open_images(photographs(2, 120, 140), min_size=32)
    assert isinstance(opened, ImageSource)
    return opened


def settings(out: Path, model: Any = "sed", steps: int | None = 3, **changes: Any) -> SrTraining:
    values = {"crop_size": 32, "batch_size": 2, "learning_rate": 2e-3, "warmup_steps": 1, "discriminator_width": 4}
    return SrTraining(**{"out": out, "model": model, "steps": steps, **values, **changes})


def state(path: Path) -> dict[str, torch.Tensor]:
    return dict(read_generator(path).state)


@pytest.mark.parametrize("model", MODELS)
def test_both_stages_leave_weights_samples_and_a_card(model: str, frozen: FrozenNetworks, tmp_path: Path) -> None:
    seen: list[Progress] = []
    train_sr(settings(tmp_path, model), source(), frozen, seen.append)
    assert {progress.name for progress in seen} == {"psnr", "gan"}
    psnr, gan = (read_generator(tmp_path / f"{stage}.safetensors") for stage in ("psnr", "gan"))
    assert gan.recipe["steps"] == psnr.recipe["steps"] == 3
    assert any(not torch.equal(psnr.state[key], gan.state[key]) for key in psnr.state)
    assert {key.split(".")[0] for key in gan.state} == {key.split(".")[0] for key in psnr.state}
    card = (tmp_path / "README.md").read_text()
    assert "| psnr |" in card
    assert "| gan |" in card
    assert {"psnr.png", "gan.png"} <= {path.name for path in tmp_path.iterdir()}


def test_training_lowers_the_error(frozen: FrozenNetworks, tmp_path: Path) -> None:
    # crops of the smooth test pictures are nearly solved by bicubic: a wrong start shows the descent
    run = settings(tmp_path, steps=40, stage="psnr", batch_size=4, learning_rate=1e-2, ema_decay=0.9)
    network = TINY_GENERATORS["rrdb_small"]()
    network.tail.bias.data.fill_(0.2)
    start = tmp_path / "start.safetensors"
    write_generator(start, GeneratorWeights("rrdb_small", "psnr", network.state_dict()))
    train_sr(replace(run, init=start), source(), frozen)
    assert read_generator(tmp_path / "psnr.safetensors").recipe["psnr_output"] > 25  # the start is at 14 dB


@pytest.mark.parametrize("stage", ["psnr", "gan"])
def test_a_killed_stage_goes_on_to_the_same_weights(
    stage: str, frozen: FrozenNetworks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools_zoo.training.trainer.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("tools_zoo.training.trainer.REPORT_SECONDS", 0.0)
    whole, killed = settings(tmp_path / "whole", steps=4), settings(tmp_path / "killed", steps=4)
    train_sr(whole, source(), frozen)

    def kill(progress: Progress) -> None:
        if progress.name == stage and progress.step == 3:
            raise KilledError

    with pytest.raises(KilledError):
        train_sr(killed, source(), frozen, kill)
    train_sr(killed, source(), frozen)
    for name in ("psnr", "gan"):
        one, other = (state(run.out / f"{name}.safetensors") for run in (whole, killed))
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_checkpoint_of_another_run_is_refused(frozen: FrozenNetworks, tmp_path: Path) -> None:
    train_sr(settings(tmp_path), source(), frozen)
    with pytest.raises(TrainingError, match="semantic"):
        train_sr(settings(tmp_path, semantics=False), source(), frozen)
    with pytest.raises(TrainingError, match="features"):
        train_sr(settings(tmp_path), source(), replace(frozen, features=SqueezeNet()))
    other, weights = tmp_path / "other.safetensors", read_generator(tmp_path / "psnr.safetensors")
    write_generator(other, replace(weights, state=TINY_GENERATORS["rrdb_small"]().state_dict()))
    with pytest.raises(TrainingError, match="started_from"):  # settings.init comes before the weights in the folder
        train_sr(settings(tmp_path, stage="gan", init=other), source(), frozen)


def test_what_cannot_be_trained_is_refused_before_the_first_stage(tmp_path: Path) -> None:
    wrong: dict[str, dict[str, Any]] = {
        "takes no semantics": {"discriminator": "vgg"},
        "adversarial_loss must be one of": {"adversarial_loss": "x"},
        "generator must be one of": {"generator": "rain"},
        "distortion must be one of": {"distortion": "rain"},
        "crop_size 16 is too small": {"crop_size": 16},
    }
    for message, changes in wrong.items():
        with pytest.raises(ValueError, match=message):
            settings(tmp_path, **changes)
    with pytest.raises(ValueError, match="no category head"):
        replace(MODELS["sft"].gan, discriminator="patch")


def test_settings_change_the_models_losses(tmp_path: Path) -> None:
    assert settings(tmp_path, discriminator_width=64).gan == MODELS["sed"].gan
    assert settings(tmp_path, discriminator="pixel").gan.perceptual == 1.0
    assert not settings(tmp_path, semantics=False).gan.semantic
    assert settings(tmp_path, "sft", discriminator="patch").gan.category == 0.0
    whole = settings(tmp_path, steps=None, minutes=10.0)
    assert [round(whole.budgets[stage].minutes or 0, 6) for stage in ("psnr", "gan")] == [6, 4]


def test_the_gan_stage_needs_a_start(frozen: FrozenNetworks, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train the PSNR stage first"):
        train_sr(settings(tmp_path, stage="gan"), source(), frozen)
    train_sr(settings(tmp_path / "sft", "sft", steps=1, stage="psnr"), source(), frozen)
    with pytest.raises(ValueError, match="weights of sft, to train rrdb_small"):
        train_sr(settings(tmp_path / "sed", init=tmp_path / "sft" / "psnr.safetensors"), source(), frozen)


def gan_network(gan: GANConfig) -> tuple[GAN, torch.Tensor]:
    torch.manual_seed(0)
    trunk, prior = SqueezeNet().requires_grad_(False), SemanticPrior().requires_grad_(False)
    network = nn.Conv2d(3, 3, 1)
    return GAN(network, gan, PerceptualLoss(trunk), trunk, prior), torch.rand(2, 3, 32, 32)


def gradients(network: nn.Module) -> list[torch.Tensor]:
    return [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("form", ["vanilla", "relativistic"])
@pytest.mark.parametrize(("name", "semantic"), [("vgg", False), ("patch", True), ("pixel", False)])
def test_each_side_learns_from_its_own_loss(form: Any, name: Any, semantic: bool) -> None:
    """One backward pass gives each side the gradient that its own loss alone would give."""
    gan = GANConfig(name, semantic, 1.0, 0.5, 0.1, 0.1 if name == "vgg" else 0.0, form, width=4)
    both, targets = gan_network(gan)
    both.eval()  # spectral norms stand still, so that two passes are alike
    inputs = torch.rand(2, 3, 32, 32)
    both.loss(both.generator(inputs), targets).backward()  # type: ignore[no-untyped-call]
    together, of_generator = gradients(both.discriminator), gradients(both.generator)
    both.zero_grad()
    extractor_map = both._frozen[1](targets)[-1] if semantic else None
    outputs = both.generator(inputs).detach()
    (real, seen), (fake, _) = both.discriminator(targets, extractor_map), both.discriminator(outputs, extractor_map)
    alone_loss = ADVERSARIAL_LOSSES[form].discriminator(real, fake)
    if seen is not None:
        alone_loss = alone_loss + category_loss(seen, categories_of(both._frozen[2], targets))
    alone_loss.backward()  # type: ignore[no-untyped-call]
    alone = gradients(both.discriminator)
    assert together
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(together, alone, strict=True))
    assert all(parameter.grad is None for parameter in both.generator.parameters())
    assert sum(float(gradient.abs().sum()) for gradient in of_generator) > 0


def test_the_adversarial_loss_moves_the_generator() -> None:
    found = []
    for weight in (0.0, 10.0):
        both, targets = gan_network(GANConfig("patch", False, 1.0, 0.0, weight, 0.0, width=4))
        both.loss(both.generator(targets), targets).backward()  # type: ignore[no-untyped-call]
        found.append(gradients(both.generator))
    assert any(not torch.allclose(one, other) for one, other in zip(*found, strict=True))


def test_categories_are_those_that_the_prior_is_sure_of() -> None:
    class Sure(SemanticPrior):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            maps = torch.full((2, 8, 4 * images.shape[2], 4 * images.shape[3]), 0.125)
            maps[0] = 0
            maps[0, 5] = 1
            return maps

    assert categories_of(Sure(), torch.rand(2, 3, 32, 32)).tolist() == [5, 0]


def test_crops_line_up_with_their_targets() -> None:
    """The small crop is cut out of the downscaled photograph: the context around it was downscaled with it."""
    image = photographs(1, 120, 140, seed=3)[0]
    sampler = SrPairSampler(source(), [0], 32, DISTORTIONS["bicubic"])
    rng = np.random.default_rng(0)
    small = DISTORTIONS["bicubic"](image, rng)
    for top, left in ((0, 0), (40, 48), (88, 108), (44, 4)):
        crop = Crop(image, "", 1.0, 1, 32, top, left)
        distorted, clean = sampler.distort(crop, rng), crop.target()
        assert np.array_equal(clean, image[top : top + 32, left : left + 32])
        expected = small[top // 4 : top // 4 + 8, left // 4 : left // 4 + 8]
        assert np.abs(distorted.astype(int) - expected).max() <= 1


def test_crops_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        SrPairSampler(source(), [0], 30, DISTORTIONS["bicubic"])
    with pytest.raises(ValueError, match="no image is as large"):
        SrPairSampler(source(), [0], 400, DISTORTIONS["bicubic"])


def test_the_command_trains_and_reports_missing_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "sr", "--out", str(tmp_path / "out"), "--steps", "1", "--crop-size", "32", "--batch-size", "1"]
    words += ["--discriminator-width", "4", "--model", "sed"]
    assert main([*words, "--no-semantics"]) == 0
    assert read_generator(tmp_path / "out" / "gan.safetensors").recipe["semantic"] is False
    for extra, message in (
        (["--vgg", "nowhere.pth"], "nowhere.pth"),
        (["--clip", "nowhere.pt"], "nowhere.pt"),
        (["--prior", "nowhere.safetensors"], "nowhere.safetensors"),
    ):
        assert main([*words, *extra]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
