from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from agents.cli import main
from sr_models.prior.categories import CATEGORIES, IGNORE
from sr_models.prior.labels import LabelledImages, SegmentationScores, evaluate_prior
from sr_models.prior.segformer import SegformerPrior, load_segformer
from sr_models.prior.semantic_prior import (
    MAX_INPUT_PIXELS,
    SHIPPED,
    Prior,
    PriorError,
    SemanticPrior,
    check_maps,
    load_prior,
    network_input,
    save_prior,
)
from sr_models.training.prior import LabelledPatches, cut_patch, label_error, train_prior
from sr_models.training.settings import PriorTraining
from tests.support.scenes import COLOURS, write_scenes

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def shipped() -> SemanticPrior:
    return load_prior()


@pytest.mark.parametrize(("height", "width"), [(63, 63), (1, 2), (17, 40)])
def test_maps_are_probabilities_four_times_as_large(shipped: SemanticPrior, height: int, width: int) -> None:
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    maps = shipped(images)
    assert maps.dtype == torch.float32
    assert maps.shape == (2, 8, 4 * height, 4 * width)
    assert check_maps(maps, images) is maps
    assert torch.equal(maps, shipped(images))
    assert isinstance(shipped, Prior)


def test_an_image_has_the_same_maps_alone_and_in_a_batch(shipped: SemanticPrior) -> None:
    images = torch.rand(3, 3, 20, 24)
    assert torch.allclose(shipped(images)[1:2], shipped(images[1:2]), atol=1e-5)


def test_a_large_photograph_is_shrunk_first(shipped: SemanticPrior) -> None:
    images = torch.rand(1, 3, 300, 420)
    height, width = network_input(images).shape[-2:]
    assert MAX_INPUT_PIXELS * 0.98 < height * width < MAX_INPUT_PIXELS * 1.02
    assert height / width == pytest.approx(300 / 420, rel=0.01)
    assert network_input(images[..., :100, :100]).shape[-2:] == (400, 400)
    assert shipped(images).shape == (1, 8, 1200, 1680)


def test_the_shipped_prior_is_small_and_records_its_accuracy(shipped: SemanticPrior) -> None:
    assert (SHIPPED / "prior.safetensors").stat().st_size < 4e6
    assert shipped.recipe["accuracy"] > 0.6
    card = (SHIPPED / "prior.md").read_text()
    for name in CATEGORIES:
        assert f"| {name} |" in card
    assert not re.search(r"/(home|tmp|work|root)/", card + str(shipped.recipe))


def test_the_shipped_prior_does_about_as_well_as_its_card_says(shared: Path, shipped: SemanticPrior) -> None:
    folders = [shared / "data" / name for name in ("seg_bsds108", "seg_labelmefacade")]
    if not all(folder.is_dir() for folder in folders):
        pytest.skip("no labelled photographs in the shared data")
    images = LabelledImages(*folders)
    _, held_out = images.split()
    scores = evaluate_prior(shipped, images, held_out[::4])
    assert scores.accuracy == pytest.approx(shipped.recipe["accuracy"], abs=0.1)  # of them all


def test_weights_survive_saving(tmp_path: Path) -> None:
    prior = SemanticPrior({"steps": 3})
    save_prior(prior, tmp_path / "prior.safetensors")
    for path in (tmp_path / "prior.safetensors", tmp_path):
        loaded = load_prior(path)
        assert loaded.recipe == {"steps": 3}
        assert not any(parameter.requires_grad for parameter in loaded.parameters())
        for name, value in prior.state_dict().items():
            assert torch.equal(value, loaded.state_dict()[name])


def test_bad_files_are_refused_in_one_line(tmp_path: Path) -> None:
    def refused(path: Path, match: str) -> None:
        with pytest.raises(PriorError, match=match) as error:
            load_prior(path)
        assert "\n" not in str(error.value)

    path = tmp_path / "prior.safetensors"
    refused(path, "no such file; expected 'default'")
    path.write_bytes(b"damaged")
    refused(path, "not a readable safetensors file")
    save_file({**SemanticPrior().state_dict(), "decoder.scores.bias": torch.zeros(9)}, path)
    refused(path, r"another architecture; a prior has decoder\.scores\.bias \(8,\), the file has \(9,\)")


def test_maps_that_are_no_prior_are_refused() -> None:
    images = torch.rand(2, 3, 5, 6)
    maps = torch.full((2, 8, 20, 24), 1 / 8)
    check_maps(maps, images)
    wrong = {
        "expected \\(2, 8, 20, 24\\), 4 times as large": maps[:, :7],
        "expected \\(2, 8, 20": maps[..., :23],
        "shape \\(1, 8, 20, 24\\): expected \\(2": maps[:1],
        "do not sum to 1": maps * 1.01,
        "the value nan": torch.full_like(maps, float("nan")),
        "the value -1": torch.cat([maps[:, :6], -torch.ones(2, 1, 20, 24), torch.ones(2, 1, 20, 24)], dim=1),
    }
    for match, bad in wrong.items():
        with pytest.raises(ValueError, match=match) as error:
            check_maps(bad, images)
        assert "\n" not in str(error.value)


def test_agreement_counts_what_is_known() -> None:
    confusion = np.zeros((8, 8), np.int64)
    confusion[1, 1], confusion[1, 2], confusion[2, 2] = 6, 2, 2
    scores = SegmentationScores(confusion)
    assert scores.accuracy == 0.8
    assert scores.ious[1] == 6 / 8
    assert scores.ious[2] == 2 / 4
    assert np.isnan(scores.ious[0])
    assert scores.mean_iou == pytest.approx((6 / 8 + 2 / 4) / 2)


class ByColour(torch.nn.Module):
    """Finds the scenes' categories by their colours."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        colours = torch.from_numpy(COLOURS).float()[None, :, :, None, None] / 255
        nearest = (images[:, None] - colours).square().sum(dim=2).argmin(dim=1)
        maps = torch.nn.functional.one_hot(nearest, 8).permute(0, 3, 1, 2).float()
        return maps.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)


def test_evaluation_of_a_prior_that_knows_the_scenes(tmp_path: Path) -> None:
    images = LabelledImages(write_scenes(tmp_path, 6, 42, 50))
    scores = evaluate_prior(ByColour(), images, range(6))
    known = sum(int((images.pair(i)[1][:40, :48] != IGNORE).sum()) for i in range(6))
    assert scores.confusion.sum() == known
    assert scores.accuracy > 0.85


@pytest.mark.parametrize("factor", [0.3, 1.0, 2.1])
def test_a_patch_keeps_its_labels_in_place(factor: float) -> None:
    rng = np.random.default_rng(0)
    ids = np.kron(rng.integers(0, 8, (10, 12)), np.ones((12, 12))).astype(np.uint8)
    image = np.repeat(ids[..., None] * 20, 3, axis=2).astype(np.uint8)
    patch, labels = cut_patch(image, ids, 64, factor, rng)
    assert patch.shape == (64, 64, 3)
    assert labels.shape == (64, 64)
    known = labels != IGNORE
    assert known.mean() == pytest.approx(min(1, round(120 * factor) / 64) ** 2)
    off = np.abs(patch[..., 0].astype(int) - labels.astype(int) * 20)
    assert (off[known] < 12).mean() > 0.7  # all but the blended edges


def test_patches_are_a_function_of_the_seed_and_even_over_the_categories(tmp_path: Path) -> None:
    images = LabelledImages(write_scenes(tmp_path, 8))
    sampler = LabelledPatches(images, range(8), 32, 0.5)
    first, again = (sampler.batch(np.random.default_rng(3), 4) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert first[0].shape == (4, 8, 8, 3)
    assert first[1].shape == (4, 32, 32)
    assert set(np.unique(first[1])) <= {*range(8), IGNORE}


def test_unknown_pixels_are_not_learned_from() -> None:
    prior = SemanticPrior()
    inputs = np.zeros((1, 8, 8, 3), np.uint8)
    error = label_error(prior)((inputs, np.full((1, 32, 32), IGNORE, np.uint8)))
    assert float(error.detach()) == 0
    half = np.full((1, 32, 32), IGNORE, np.uint8)
    half[:, :16] = 2
    assert float(label_error(prior)((inputs, half)).detach()) == pytest.approx(np.log(8), abs=1e-4)  # no opinion yet


def settings(out: Path, steps: int = 3, **changes: Any) -> PriorTraining:
    values = {"labels": (), "batch_size": 2, "patch_size": 32, "warmup_steps": 2}
    return PriorTraining(**{"out": out, "steps": steps, **values, **changes})


def test_training_learns_and_writes_weights_card_and_curve(tmp_path: Path) -> None:
    images = LabelledImages(write_scenes(tmp_path / "labels", 6))
    losses: list[float] = []
    schedule = {"learning_rate": 2e-3, "warmup_steps": 5, "ema_decay": 0.998}
    chosen = settings(tmp_path / "out", 25, **schedule, command="imagerestore train prior")
    _, scores = train_prior(chosen, images, lambda now: losses.append(now.loss))
    assert losses[-1] < 1.8 < losses[0]
    loaded = load_prior(tmp_path / "out")
    assert loaded.recipe["accuracy"] == round(scores.accuracy, 4)
    assert evaluate_prior(loaded, images, images.split()[1]).accuracy == scores.accuracy
    assert loaded.recipe["held_out"] == 2
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"pixel accuracy {scores.accuracy:.3f}" in card
    assert "| animal |" in card
    assert (tmp_path / "out" / "checkpoints" / "prior.png").stat().st_size > 0


@pytest.mark.parametrize("changes", [{"patch_size": 30}, {"patch_size": 8}, {"slight_share": 1.5}])
def test_wrong_settings_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        settings(tmp_path, **changes)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(write_scenes(tmp_path / name, 2)) for name in "ab"]
    words = ["train", "prior", "--labels", *folders, "--out", str(tmp_path / "out"), "--steps", "2"]
    words += ["--batch-size", "1", "--patch-size", "32"]
    assert main(words) == 0
    assert "prior: 2 steps" in capsys.readouterr().out
    assert load_prior(tmp_path / "out").recipe["images"] == 2
    assert main([*words, "--squeezenet", str(tmp_path / "none.npz")]) == 2
    error = capsys.readouterr().err
    assert "none.npz: no such file" in error
    assert error.count("\n") == 1


def test_a_segformers_classes_become_categories() -> None:
    class Water(torch.nn.Module):
        def forward(self, pixel_values: torch.Tensor) -> Any:
            logits = torch.zeros(len(pixel_values), 150, 7, 9)
            logits[:, [21, 60]] = 20.0  # water and river
            return SimpleNamespace(logits=logits)

    images = torch.rand(2, 3, 3, 9)
    maps = check_maps(SegformerPrior(Water())(images), images)
    assert float(maps[:, CATEGORIES.index("water")].min()) > 0.99


def test_a_segformer_gives_the_same_maps(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra 'semantics')")

    def model(labels: int) -> Any:
        config = transformers.SegformerConfig(
            num_labels=labels,
            depths=[1, 1, 1, 1],
            hidden_sizes=[4, 8, 8, 8],
            num_attention_heads=[1, 1, 1, 1],
            decoder_hidden_size=8,
        )
        return transformers.SegformerForSemanticSegmentation(config)

    torch.manual_seed(0)
    model(150).save_pretrained(tmp_path / "ade")
    prior = load_segformer(tmp_path / "ade")
    assert isinstance(prior, Prior)
    assert prior.macs_per_pixel > 0
    for height, width in ((20, 17), (3, 9)):
        images = torch.rand(2, 3, height, width)
        check_maps(prior(images), images)
    model(19).save_pretrained(tmp_path / "streets")
    with pytest.raises(PriorError, match="has 19 classes; expected ADE20K's 150"):
        load_segformer(tmp_path / "streets")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PriorError, match="not a loadable segmentation model"):
        load_segformer(tmp_path / "empty")


def test_without_transformers_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(PriorError, match=r"needs transformers, which is not installed: .*imagerestore\[semantics\]"):
        load_segformer(f"some/model@{'0' * 40}")


@pytest.mark.parametrize("name", ["some/model", "some/model@main", "some/model@"])
def test_a_hub_model_needs_a_commit(name: str) -> None:
    with pytest.raises(PriorError, match="name the commit, some/model@"):
        load_segformer(name)


def test_the_commit_is_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def from_pretrained(name: str, **arguments: Any) -> None:
        asked.append((name, arguments))
        raise OSError("offline")

    segmentation = SimpleNamespace(from_pretrained=from_pretrained)
    module = SimpleNamespace(__spec__=object(), AutoModelForSemanticSegmentation=segmentation)
    monkeypatch.setitem(sys.modules, "transformers", module)
    with pytest.raises(PriorError, match=r"not a loadable segmentation model \(offline\)"):
        load_segformer(f"some/model@{'a' * 40}")
    assert asked == [("some/model", {"trust_remote_code": False, "revision": "a" * 40})]
