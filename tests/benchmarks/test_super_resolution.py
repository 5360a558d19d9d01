"""The super-resolution benchmarks, by stand-ins with random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from benchmarks.baselines.complexity import macs_per_pixel
from benchmarks.super_resolution import __main__ as super_resolution
from benchmarks.super_resolution import evaluation, peers
from benchmarks.super_resolution.evaluation import (
    Scores,
    load_all,
    measure,
    networks_of,
    open_photos,
    parse_weights,
    score,
    upscaled,
)
from benchmarks.super_resolution.peers import CARNM, PEERS, RFDN, Peer, load_peer
from restore_env.images.decoding import read_image
from restore_env.toolbox import BICUBIC_X4, FunctionTool, Tool
from sr_models import super_resolver
from sr_models.extractors.squeezenet import SqueezeNet
from sr_models.generators.conditioning import SpatialTransform
from sr_models.generators.rrdb import RRDBNet
from sr_models.generators.sft_net import SFTNet
from sr_models.super_resolver import GeneratorWeights, write_generator
from sr_models.training.blind_distortion import bicubic
from tests.support.toolkit import photographs

SETS = {"set_a": (2, 134, 131), "set_b": (1, 262, 258)}
"""Photographs of each set: how many, height and width."""


def mean_distance(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (images - targets).abs().flatten(1).mean(1)


def small_sft() -> SFTNet:
    """An untrained SFT-Net whose maps matter."""
    network = SFTNet(channels=8, blocks=1)
    for layer in network.modules():
        if isinstance(layer, SpatialTransform):
            for branch in (layer.gamma, layer.beta):
                last = branch[-1]
                assert isinstance(last, nn.Conv2d)
                nn.init.normal_(last.weight, std=0.5)
    nn.init.normal_(network.tail.weight, std=0.05)
    return network


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sets of photographs, peers, weights files, and a card with room for every table."""
    folder = tmp_path_factory.mktemp("sr")
    for name, (count, height, width) in SETS.items():
        (folder / name).mkdir()
        for number, picture in enumerate(photographs(count, height, width)):
            Image.fromarray(picture).save(folder / name / f"{number}.png")
    torch.manual_seed(0)
    (folder / "peers").mkdir()
    torch.save(RFDN().state_dict(), folder / "peers" / PEERS["RFDN"].file)
    spare = {"upsample.up2.body.0.weight": torch.zeros(1)}  # of another scale, as in the published file
    torch.save({**CARNM().state_dict(), **spare}, folder / "peers" / PEERS["CARN-M"].file)
    sections = ("super-resolution",)
    (folder / "card.md").write_text("".join(f"<!-- {name}:begin -->\n<!-- {name}:end -->\n" for name in sections))
    return folder


@pytest.fixture
def generators(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Small generators in place of the shipped ones, and one of the four files missing."""
    small: dict[str, Callable[[], nn.Module]] = {
        "sft": small_sft,
        "rrdb_small": partial(RRDBNet, channels=8, growth=4, blocks=1),
    }
    monkeypatch.setattr(super_resolver, "GENERATORS", small)
    weights = folder / "weights"
    monkeypatch.setattr(super_resolver, "SHIPPED", weights)
    for slot, stage in (("sft_gan", "psnr"), ("sft_gan", "gan"), ("sed", "psnr")):
        (weights / slot).mkdir(parents=True, exist_ok=True)
        network = "sft" if slot == "sft_gan" else "rrdb_small"
        write_generator(
            weights / slot / f"{stage}.safetensors", GeneratorWeights(network, stage, small[network]().state_dict())
        )
    return weights


class TestPeers:
    def test_sizes_and_computation_are_the_published_ones(self) -> None:
        assert sum(p.numel() for p in RFDN().parameters()) == 433_448
        assert macs_per_pixel(CARNM(), size=64) * 320 * 180 / 1e9 == pytest.approx(32.5, abs=0.05)  # for 1280x720 out
        assert macs_per_pixel(RFDN(), size=256) * 256 * 256 / 1e9 == pytest.approx(27.1, abs=0.2)  # AIM 2020

    @pytest.mark.parametrize("name", PEERS)
    def test_enlarge_any_size(self, name: str, folder: Path) -> None:
        peer = load_peer(name, folder / "peers")
        assert peer(torch.rand(2, 3, 15, 22)).shape == (2, 3, 60, 88)

    def test_published_weights_give_the_published_psnr(self, shared: Path) -> None:
        photos = open_photos(shared / "data" / "public_test" / "set5")
        tools: dict[str, Tool | None] = {name: load_peer(name, shared / "data" / "weights") for name in PEERS}
        means = measure({"bicubic": BICUBIC_X4, **tools}, photos, mean_distance, "cpu", pytest.fail)
        for name, expected in {"bicubic": 28.43, **{name: peer.set5_psnr for name, peer in PEERS.items()}}.items():
            found = means[name]
            assert found is not None
            assert found.psnr == pytest.approx(expected, abs=0.005)

    def test_a_missing_file_and_another_network(self, folder: Path) -> None:
        with pytest.raises(ValueError, match=r"RFDN_AIM\.pth: no such file"):
            load_peer("RFDN", folder)
        (folder / "wrong").mkdir()
        torch.save(RFDN(8).state_dict(), folder / "wrong" / PEERS["RFDN"].file)
        with pytest.raises(ValueError, match=r"RFDN_AIM\.pth: not RFDN"):
            load_peer("RFDN", folder / "wrong")


class TestContest:
    def test_photographs_are_cut_to_multiples_of_four(self, folder: Path) -> None:
        photos = open_photos(folder / "set_a")
        assert [pixels.shape for pixels in photos.values()] == [(132, 128, 3)] * 2

    def test_borders_do_not_count(self, folder: Path) -> None:
        target = open_photos(folder / "set_b")["0"]
        framed = target.copy()
        framed[:4], framed[-4:], framed[:, :4], framed[:, -4:] = 0, 255, 0, 255
        assert score(framed, target, mean_distance) == Scores(100.0, 1.0, 0.0)

    def test_y_weighs_green_most(self, folder: Path) -> None:
        target = open_photos(folder / "set_b")["0"] // 2
        scores = []
        for channel in range(3):
            changed = target.copy()
            changed[..., channel] += 20
            scores.append(score(changed, target, mean_distance).psnr)
        assert scores[1] < scores[0] < scores[2]
        assert scores[1] == pytest.approx(-20 * np.log10(20 * 128.553 / 255**2), abs=0.01)

    def test_a_failure_is_a_row_of_its_own(self, folder: Path) -> None:
        def fail(images: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("out of memory")

        told: list[str] = []
        tools = {"bicubic": BICUBIC_X4, "broken": FunctionTool("broken", fail, 4), "missing": None}
        scores = measure(tools, open_photos(folder / "set_b"), mean_distance, "cpu", told.append)
        assert scores["bicubic"] is not None
        assert scores["broken"] is scores["missing"] is None
        assert told == ["broken: failed: out of memory"]

    def test_all_take_part(self, folder: Path, generators: Path) -> None:
        told: list[str] = []
        extra = {"mine": generators / "sed" / "psnr.safetensors"}
        tools = load_all(networks_of(folder / "peers", extra, "cpu"), told.append)
        assert [name for name, tool in tools.items() if tool is None] == ["sed, gan"]
        assert len(told) == 1
        assert "gan.safetensors: no such file" in told[0]
        assert list(tools) == [
            *("bicubic", "RFDN", "CARN-M", "sft_gan, psnr", "sft_gan, gan", "sed, psnr", "sed, gan", "mine")
        ]

    @pytest.mark.parametrize("texts", [["file"], ["=file"], ["name="], ["a=1", "a=2"]])
    def test_extra_rows_have_names(self, texts: list[str]) -> None:
        with pytest.raises(ValueError, match="expected NAME=FILE, each name once"):
            parse_weights(texts)

    def test_speed_is_measured_for_all_sizes(self) -> None:
        speed = evaluation.measure_speed({"bicubic": BICUBIC_X4}, 2, "cpu", (8, 16))
        assert speed["bicubic"].keys() == {8, 16}
        assert all(taken > 0 for taken in speed["bicubic"].values())


class TestTable:
    def words(self, folder: Path) -> list[str]:
        sets = [str(folder / name) for name in SETS]
        return ["--images", *sets, "--peers", str(folder / "peers"), "--card", str(folder / "card.md")]

    def test_the_command_writes_tables_numbers_and_a_picture(
        self,
        folder: Path,
        generators: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(super_resolution, "SIZES", (16, 24))
        monkeypatch.setattr(super_resolution, "measure_speed", partial(evaluation.measure_speed, sizes=(16, 24)))
        monkeypatch.setattr(super_resolution, "default_extractor", SqueezeNet)
        figure, numbers = tmp_path / "figure.png", tmp_path / "numbers.json"
        extra = f"mine={generators / 'sed' / 'psnr.safetensors'}"
        words = [
            *self.words(folder),
            "--rounds",
            "1",
            "--figure",
            str(figure),
            "--json",
            str(numbers),
            "--extra",
            extra,
        ]
        assert super_resolution.main(words) == 0
        out = capsys.readouterr().out
        assert "| sed, gan | not there | not there |" in out
        assert out.count("| RFDN | 433 |") == 1
        assert (folder / "card.md").read_text().count("| mine |") == 2
        assert read_image(figure).pixels.shape[1] > 500
        record: dict[str, Any] = json.loads(numbers.read_text())
        assert record["sets"]["set_a"]["mine"] == record["sets"]["set_a"]["sed, psnr"]
        assert record["sets"]["set_b"]["sed, gan"] is None
        assert record["models"]["sed"]["ms"]["16"] > 0

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (["--extra", "RFDN=x.safetensors"], "names that differ"),
            (["--rounds", "-1"], "--rounds must be 0 or more"),
            (["--section", "none"], "none:begin"),
            (["--device", "none"], "device 'none' cannot be used"),
            (["--figure", "figure.txt"], "a figure ends in"),
            (["--squeezenet", "none.npz"], "none.npz: no such file"),
        ],
    )
    def test_mistakes_are_one_line(
        self, folder: Path, change: list[str], message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert super_resolution.main([*self.words(folder), *change]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1

    def test_the_hardest_crop_lies_on_the_grid_and_inside(self, folder: Path) -> None:
        target = open_photos(folder / "set_b")["0"].copy()
        target[100:200, 80:180] ^= np.random.default_rng(0).integers(0, 128, (100, 100, 3), dtype=np.uint8)
        rows, columns = super_resolution.hardest_crop(target, upscaled(BICUBIC_X4, bicubic(target)))
        assert rows.start % 4 == columns.start % 4 == 0
        assert abs(rows.start - 102) <= 4
        assert abs(columns.start - 82) <= 4


def test_peers_are_a_table() -> None:
    assert all(isinstance(peer, Peer) and peer.file.endswith(".pth") for peer in peers.PEERS.values())


def test_tensors_of_safetensors_files_are_read_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "PEERS", {"RFDN": Peer(RFDN, "rfdn.safetensors", 32.16)})
    save_file(RFDN().state_dict(), tmp_path / "rfdn.safetensors")
    assert load_peer("RFDN", tmp_path).scale == 4
