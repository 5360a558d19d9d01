"""A teacher's outputs as additional targets of super-resolution."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from restore_env.distortions.protocol import SCALES
from restore_env.images.sources import ImageSource, open_images
from sr_models.extractors.squeezenet import SqueezeNet
from sr_models.prior.semantic_prior import SemanticPrior
from sr_models.super_resolver import read_generator
from sr_models.training.blind_distortion import DISTORTIONS
from sr_models.training.crops import SrPairSampler
from sr_models.training.settings import SrTraining
from sr_models.training.super_resolution import FrozenNetworks, train_sr
from sr_models.training.teacher import TeacherOutputs, output_path
from tests.support.networks import TINY_GENERATORS
from tests.support.toolkit import photographs

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sr_models.training.super_resolution.GENERATORS", TINY_GENERATORS)
    monkeypatch.setattr("sr_models.super_resolver.GENERATORS", TINY_GENERATORS)
    monkeypatch.setattr("sr_models.training.crops.CROPS", 2)
    monkeypatch.setattr("sr_models.training.super_resolution.VALIDATION_SIZE", 32)


@pytest.fixture
def source() -> ImageSource:
    opened = open_images(photographs(2, 121, 142), min_size=32)
    assert isinstance(opened, ImageSource)
    return opened


def negatives(folder: Path, source: ImageSource) -> Path:
    """Outputs of a teacher that inverts colours."""
    folder.mkdir()
    for index in range(len(source)):
        for scale in SCALES:
            height, width = (length // 4 * 4 for length in source.size(index, scale))
            path = output_path(folder, source.identity(index), scale)
            np.save(path, 255 - source.pixels(index, scale)[:height, :width])
    return folder


def settings(out: Path, **changes: Any) -> SrTraining:
    values: dict[str, Any] = {"crop_size": 32, "batch_size": 4, "warmup_steps": 1, "ema_decay": 0.9, "steps": 30}
    return SrTraining(
        out=out, model="sed", generator="light", stage="psnr", learning_rate=1e-2, **{**values, **changes}
    )


def test_outputs_are_cut_where_the_crops_are(source: ImageSource, tmp_path: Path) -> None:
    teacher = TeacherOutputs(negatives(tmp_path / "teacher", source))
    sampler = SrPairSampler(source, [0, 1], 32, DISTORTIONS["bicubic"], teacher)
    plain = SrPairSampler(source, [0, 1], 32, DISTORTIONS["bicubic"])
    inputs, targets = sampler.batch(np.random.default_rng(0), 12)
    assert inputs.shape == (12, 8, 8, 3)
    assert targets.shape == (12, 32, 32, 6)
    assert np.array_equal(np.asarray(targets)[..., 3:], 255 - np.asarray(targets)[..., :3])
    assert plain.batch(np.random.default_rng(0), 12)[1].shape == (12, 32, 32, 3)


def test_the_teacher_pulls_as_much_as_its_share(source: ImageSource, tmp_path: Path) -> None:
    torch.manual_seed(0)
    trunk = SqueezeNet()
    frozen = FrozenNetworks(SemanticPrior(), trunk, trunk, trunk)
    teacher = negatives(tmp_path / "teacher", source)
    found = []
    for share in (0.0, 1.0):
        run = settings(tmp_path / str(share), teacher=teacher, teacher_share=share)
        train_sr(run, source, frozen)
        recipe = read_generator(run.out / "psnr.safetensors").recipe
        assert recipe["teacher_share"] == share
        found.append(recipe["psnr_output"])
    assert found[0] > found[1] + 1


def test_outputs_that_are_missing_or_of_another_size_are_named(source: ImageSource, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no outputs"):
        TeacherOutputs(tmp_path)
    folder = negatives(tmp_path / "teacher", source)
    sampler = SrPairSampler(source, [0, 1], 32, DISTORTIONS["bicubic"], TeacherOutputs(folder))
    for path in folder.iterdir():
        np.save(path, np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="expected uint8"):
        sampler.batch(np.random.default_rng(0), 1)
    for path in list(folder.iterdir()):
        path.rename(path.with_name(f"other-{path.name}"))
    with pytest.raises(ValueError, match="no such file"):
        sampler.batch(np.random.default_rng(0), 1)


def test_only_bicubically_shrunk_photographs_have_teachers(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none for distortion blind"):
        replace(settings(tmp_path), teacher=tmp_path, distortion="blind")
