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

from benchmarks import semantics, sr_chains, sr_contest, sr_peers, super_resolution
from benchmarks.baselines.counting import macs_per_pixel
from benchmarks.sr_contest import Scores, contestants, enlarged, load_all, measure, open_photos, parse_extra, score
from benchmarks.sr_peers import CARNM, PEERS, RFDN, Peer, load_peer
from restore_env.distortions.protocol import Levels
from restore_env.images.decoding import read_image
from restore_env.images.tiling import to_tensor
from restore_env.metrics import psnr
from restore_env.toolbox import BICUBIC_X4, FunctionTool, Tool, Toolbox
from sr_models import super_resolver
from sr_models.extractors.squeezenet import SqueezeNet
from sr_models.generators.conditioning import SpatialTransform
from sr_models.generators.rrdb import RRDBNet
from sr_models.generators.sft_net import SFTNet
from sr_models.super_resolver import GeneratorWeights, write_generator
from sr_models.training.degradations import bicubic
from tests.support.toolkit import photographs, random_toolbox

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
    sections = ("super-resolution", sr_chains.SECTION, semantics.SECTION)
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
        tools = load_all(contestants(folder / "peers", extra, "cpu"), told.append)
        assert [name for name, tool in tools.items() if tool is None] == ["sed, gan"]
        assert len(told) == 1
        assert "gan.safetensors: no such file" in told[0]
        assert list(tools) == [
            *("bicubic", "RFDN", "CARN-M", "sft_gan, psnr", "sft_gan, gan", "sed, psnr", "sed, gan", "mine")
        ]

    @pytest.mark.parametrize("texts", [["file"], ["=file"], ["name="], ["a=1", "a=2"]])
    def test_extra_rows_have_names(self, texts: list[str]) -> None:
        with pytest.raises(ValueError, match="expected NAME=FILE, each name once"):
            parse_extra(texts)

    def test_speed_is_measured_for_all_sizes(self) -> None:
        speed = sr_contest.measure_speed({"bicubic": BICUBIC_X4}, 2, "cpu", (8, 16))
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
        monkeypatch.setattr(super_resolution, "measure_speed", partial(sr_contest.measure_speed, sizes=(16, 24)))
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
        rows, columns = super_resolution.hardest_crop(target, enlarged(BICUBIC_X4, bicubic(target)))
        assert rows.start % 4 == columns.start % 4 == 0
        assert abs(rows.start - 102) <= 4
        assert abs(columns.start - 82) <= 4


class TestChains:
    def test_the_search_finds_the_tool_that_undoes(self) -> None:
        shift = FunctionTool("shift", lambda images: images + 0.3)
        smooth = FunctionTool("smooth", lambda images: torch.nn.functional.avg_pool2d(images, 3, 1, 1))
        photos = {"a": photographs(1, 260, 256)[0]}
        chain = sr_chains.search(Toolbox([shift, smooth]), photos, Levels(noise_sigma=30), 4, 2, 0)
        assert chain
        assert set(chain) == {1}

    def test_inputs_are_the_same_for_the_same_seed(self) -> None:
        photos = {"a": photographs(1, 64, 64)[0]}
        levels = sr_chains.INPUTS[1]
        one, two, other = (sr_chains.degraded(photos, levels, seed)["a"] for seed in (0, 0, 1))
        np.testing.assert_array_equal(one, two)
        assert one.shape == (16, 16, 3)
        assert (one != other).any()

    def test_the_command(
        self, folder: Path, generators: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        class Stops:
            def predict(self, observation: Any, **_: Any) -> tuple[Any, None]:
                return np.full(len(observation["last_action"]), 12), None

        box = random_toolbox()
        monkeypatch.setattr(sr_chains, "Restorer", lambda *_: sr_chains_restorer(box, Stops()))
        monkeypatch.setattr(sr_chains, "INPUTS", sr_chains.INPUTS[:1])
        words = ["--images", str(folder / "set_a"), "--search-images", str(folder / "set_b")]
        words += ["--search-patches", "2", "--beam", "1", "--card", str(folder / "card.md")]
        assert sr_chains.main([*words, "--json", str(folder / "chains.json")]) == 0
        out = capsys.readouterr().out
        assert "| sed, gan | not there |" in out
        record = json.loads((folder / "chains.json").read_text())["inputs"]["noise 10, JPEG 60"]
        rows = {row["name"]: row["psnr"] for row in record["rows"]}
        assert rows["RFDN"] is rows["sed, gan"] is None
        assert rows["bicubic"]["alone"] == rows["bicubic"]["agent's chain"]
        small = sr_chains.degraded(open_photos(folder / "set_a"), sr_chains.INPUTS[0], 0)
        expected = [
            float(psnr(to_tensor(enlarged(BICUBIC_X4, small[name])), to_tensor(target)))
            for name, target in open_photos(folder / "set_a").items()
        ]
        assert rows["bicubic"]["alone"] == pytest.approx(np.mean(expected))

    def test_photographs_too_small_to_search_on(
        self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Image.fromarray(photographs(1, 120, 120)[0]).save(tmp_path / "small.png")
        words = ["--images", str(folder / "set_a"), "--search-images", str(tmp_path)]
        assert sr_chains.main(words) == 2
        assert "no photograph of 252x252 pixels or more" in capsys.readouterr().err


def sr_chains_restorer(box: Toolbox, policy: Any) -> Any:
    from agents.restoration.restorer import Restorer

    return Restorer(box, policy)


class TestSemantics:
    @pytest.fixture(autouse=True)
    def _random_eyes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(super_resolution, "default_extractor", SqueezeNet)

    def test_the_command_draws_and_tells_that_priors_matter(
        self, folder: Path, generators: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        figure, modulations, numbers = tmp_path / "a.png", tmp_path / "b.svg", tmp_path / "c.json"
        words = ["--images", str(folder / "set_a"), "--show", "1", "--channels", "3", "--card", str(folder / "card.md")]
        words += ["--figure", str(figure), "--modulations", str(modulations), "--json", str(numbers)]
        assert semantics.main(words) == 0
        rows = json.loads(numbers.read_text())["priors"]
        names = ["own maps", "sky", "water", "grass", "mountain", "building", "plant", "animal"]
        assert [row["prior"] for row in rows] == names
        assert rows[0]["change"] == 0
        assert all(row["change"] > 0 for row in rows[1:])
        assert "| own maps | 0.00 |" in capsys.readouterr().out
        assert read_image(figure).pixels.shape[1] > 500
        assert modulations.stat().st_size > 1000

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (["--model", "sed", "--stage", "psnr"], "sed: this super-resolver takes no semantic maps"),
            (["--model", "nothing"], "nothing: no super-resolver"),
            (["--show", "9"], "--show 9: no such photograph; there are 0, 1"),
        ],
    )
    def test_mistakes_are_one_line(
        self, folder: Path, generators: Path, change: list[str], message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert semantics.main(["--images", str(folder / "set_a"), *change]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1

    def test_texture_is_zero_where_all_is_smooth(self) -> None:
        ramp = torch.linspace(0, 1, 32).expand(1, 3, 32, 32)
        assert semantics.texture(ramp) < 1e-6
        assert semantics.texture(torch.rand(1, 3, 32, 32)) > 0.5


def test_peers_are_a_table() -> None:
    assert all(isinstance(peer, Peer) and peer.file.endswith(".pth") for peer in sr_peers.PEERS.values())


def test_tensors_of_safetensors_files_are_read_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sr_peers, "PEERS", {"RFDN": Peer(RFDN, "rfdn.safetensors", 32.16)})
    save_file(RFDN().state_dict(), tmp_path / "rfdn.safetensors")
    assert load_peer("RFDN", tmp_path).scale == 4
