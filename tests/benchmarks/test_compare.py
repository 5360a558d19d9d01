"""The comparison: methods, measurements, storage and tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from agents.agent import RecurrentAgent, save_policy
from agents.policies.heuristics import FixedChain
from agents.rollout import draw_starts, play
from benchmarks.baselines import BASELINES
from benchmarks.baselines.weights import BaselineWeights, write_baseline
from benchmarks.compare import __main__ as compare
from benchmarks.compare import results
from benchmarks.compare.distortions import NAMES, OUTSIDE, distortion_of
from benchmarks.compare.method import Method
from benchmarks.compare.methods import Setting, make_method, usual_methods
from benchmarks.compare.photographs import draw_photographs, play_photographs
from restore_env import Task
from restore_env.metrics import ssim
from restore_env.toolbox import FunctionTool, Toolbox
from tests.support.toolkit import photographs, pixelwise_toolbox, random_toolbox
from tools_zoo import load_toolbox

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number, picture in enumerate(photographs(2, 80, 100)):
        Image.fromarray(picture).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    Image.fromarray(photographs(1, 260, 261)[0]).save(folder / "a.png")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    for name in ("cascade", "srcnn"):
        row = BASELINES[name]
        write_baseline(folder / f"{name}.safetensors", BaselineWeights(row, row.network().state_dict(), {}))
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_every_severity_distorts_and_repeats(name: str, photos: Path) -> None:
    task = Task(images=photos, upscale=(1,), **distortion_of(name))
    first, second = (draw_starts(task, 2, 0)[1] for _ in range(2))
    assert np.array_equal(first.distorted, second.distorted)
    assert first.distorted.shape == first.target.shape == (63, 63, 3)
    assert np.array_equal(first.distorted, first.target) == (name == "clean")
    assert "clean" in OUTSIDE


def test_motion_blurs_and_does_not_move() -> None:
    dot = np.zeros((63, 63, 3), np.uint8)
    dot[31, 31] = 255
    for start in draw_starts(Task(images=[dot], upscale=(1,), **distortion_of("motion")), 5, 0):
        weight = start.distorted[..., 0].astype(float)
        centre = [float((weight.sum(axis=axis) * np.arange(63)).sum() / weight.sum()) for axis in (0, 1)]
        assert centre == pytest.approx([31, 31], abs=1)


def test_every_method_is_played_by_the_same_code(photos: Path, weights: Path) -> None:
    setting = Setting(weights={"cascade": weights / "cascade.safetensors"})
    starts = draw_starts(Task(images=photos, upscale=(1,)), 3, 0)
    untouched, cascade = (make_method(name, setting) for name in ("input", "cascade"))
    task = Task(images=photos, upscale=(1,))
    nothing = untouched.play(task, starts, {"ssim": ssim})
    assert nothing.gain == 0
    assert not nothing.gmacs.any()
    expected = [float(ssim(*(_nchw(side) for side in (start.distorted, start.target)))[0]) for start in starts]
    assert nothing.scores["ssim"] == pytest.approx(expected)
    played = cascade.play(task, starts)
    assert played.gmacs == pytest.approx(BASELINES["cascade"].macs_per_pixel * 63**2 / 1e9)
    assert cascade.parameters == 152_553
    assert "undertrained" in cascade.training


def _nchw(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def agent_method(stop: bool = False) -> Method:
    toolbox = random_toolbox()
    agent = RecurrentAgent(toolbox.names).eval()
    if stop:
        agent.head.bias.data[-1] = 100
    return Method("agent", "agent", agent, toolbox, 7)


def test_the_computation_of_an_agent_is_counted() -> None:
    """The published encoder: four convolutions, two linear layers, an LSTM of 50."""
    convolutions = 32**2 * 9 * 9 * 3 * 32 + 16**2 * 25 * 32 * 24 + 8**2 * 25 * 24 * 24 + 4**2 * 25 * 24 * 24
    rest = 384 * 32 + 4 * 50 * (32 + 12 + 50) + 50 * 13
    assert agent_method().policy_gmacs == pytest.approx((convolutions + rest) / 1e9)
    other = agent_method(stop=True)
    assert other.fingerprint() != agent_method().fingerprint()
    assert agent_method().fingerprint() == agent_method().fingerprint()


def test_only_what_there_are_files_for_is_usual(weights: Path) -> None:
    names = usual_methods(Setting(weights={"cascade": weights / "cascade.safetensors", "vdsr": weights / "none"}))
    assert {"input", "default", "pure", "greedy", "fixed", "cascade"} <= set(names)
    assert not {"published", "owan", "vdsr"} & set(names)
    assert {"published", "owan"} <= set(usual_methods(Setting(published=weights, owan=weights)))


@pytest.mark.parametrize(
    ("name", "message"),
    [("published", "by --published"), ("owan", "by --owan"), ("vdsr", "no such file; expected what python -m")],
)
def test_a_method_without_its_file_says_so(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        make_method(name, Setting(weights={} if name != "vdsr" else {"vdsr": tmp_path / "none"}))


def test_a_fixed_chain_is_searched_on_other_photographs(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.compare.methods.load_toolbox", lambda name, device: pixelwise_toolbox())
    for name, title in (
        ("fixed", "best constant chain ("),
        ("fixed_1", "best single tool ("),
        ("fixed_2", "best constant chain of 2 ("),
    ):
        found = make_method(name, Setting(search_images=photos, search_patches=2, beam=2))
        assert isinstance(found.policy, FixedChain)
        assert found.title.startswith(title)
        assert len(found.policy.chain) == int(name[6:] or len(found.policy.chain))


def test_an_own_agent_gets_its_own_observations(photos: Path, tmp_path: Path) -> None:
    agent = RecurrentAgent(load_toolbox("pure").names, recipe={"observe": "float32"})
    agent.head.bias.data[-1] = 100  # stops at once
    save_policy(agent, tmp_path / "agent.safetensors")
    own = make_method("agent", Setting(toolbox="pure", policy=str(tmp_path / "agent.safetensors")))
    task = Task(images=photos, upscale=(1,))
    played = own.play(task, draw_starts(task, 2, 0))
    assert played.actions == ((12,), (12,))
    assert played.gain == 0
    assert played.gmacs == pytest.approx(own.policy_gmacs)
    assert (own.title, own.policy) == ("agent, pure", own.agent)


class TestPhotographs:
    def test_distortions_are_of_the_whole_photograph(self, photos: Path, large: Path) -> None:
        starts = list(draw_photographs(Task(images=photos, upscale=(1,)), 1, seed=0))
        assert [start.distorted.shape for start in starts] == [(80, 100, 3)] * 2
        small = next(draw_photographs(Task(images=large, upscale=(4,), **distortion_of("webp")), 4, seed=0))
        assert (small.distorted.shape, small.target.shape) == ((65, 65, 3), (260, 260, 3))
        cropped = next(draw_photographs(Task(images=photos, upscale=(1,)), 1, seed=0, side=70))
        assert cropped.target.shape == (70, 70, 3)
        assert np.array_equal(cropped.target, starts[0].target[5:75, 15:85])

    def test_tools_act_on_all_of_it_and_tiles_vote(self, photos: Path) -> None:
        task = Task(images=photos, upscale=(1,))
        starts = list(draw_photographs(task, 1, seed=0))
        toolbox = pixelwise_toolbox()
        chain = FixedChain((0, 1), toolbox.stop)
        method = Method("chain", "chain", chain, toolbox, 0)
        whole = play_photographs(method, task, starts, {"ssim": ssim})
        plain = play(chain, Task(images=photos, upscale=(1,), toolbox=toolbox), starts, metrics={"ssim": ssim})
        assert whole.psnr == pytest.approx(plain.psnr)
        assert whole.scores["ssim"] == pytest.approx(plain.scores["ssim"])
        assert whole.gmacs == pytest.approx(plain.gmacs)
        still = agent_method(stop=True)
        voted = play_photographs(still, task, starts, {"ssim": ssim})
        assert voted.psnr == pytest.approx(voted.initial_psnr)
        assert voted.gmacs == pytest.approx([4 * still.policy_gmacs] * 2)
        assert voted.actions == ((12,), (12,))


def command(photos: Path, folder: Path, *more: str) -> list[str]:
    weights = f"cascade={folder / 'cascade.safetensors'}"
    return ["--images", str(photos), "--patches", "3", "--weights", weights, *more]


def test_one_command_compares_and_goes_on(
    photos: Path,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    methods = ["--methods", "input", "cascade", "pure", "vdsr_s", "--severity", "mild", "motion"]
    files = ["--json", str(tmp_path / "a.json"), "--figure", str(tmp_path / "a.png")]
    arguments = command(photos, weights, *methods, *files, "--reference", "input", "--cache", str(tmp_path / "store"))
    arguments += ["--weights", f"cascade={weights / 'cascade.safetensors'}", f"vdsr_s={tmp_path / 'none'}"]
    assert compare.main(arguments) == 0
    printed = capsys.readouterr()
    assert "[2/4] cascade: mild" in printed.err
    record = json.loads((tmp_path / "a.json").read_text())
    assert record["environment"]["threads"] == 1
    assert [one["name"] for one in record["failures"]] == ["vdsr_s"]
    for severity in ("mild", "motion"):
        lines = {line["name"]: line for line in record["severities"][severity]}
        assert lines["cascade"]["against"]["psnr"]["mean"] == pytest.approx(0, abs=1e-6)
        assert lines["input"]["against"] == {}
        gain = lines["pure"]["estimates"]["psnr"]["mean"] - lines["input"]["estimates"]["psnr"]["mean"]
        assert lines["pure"]["against"]["psnr"]["mean"] == pytest.approx(gain)
        assert set(lines["pure"]["estimates"]) == {"psnr", "ssim"}
    costs = {one["name"]: one["cost"] for one in record["methods"]}
    assert costs["cascade"]["seconds_per_megapixel"] > 0
    assert "| vdsr_s |" in printed.out
    assert "no such file; expected what python -m" in printed.out
    assert "| method minus input, dB | mild | motion | mean |" in printed.out
    assert (tmp_path / "a.png").stat().st_size > 1000

    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(results, "machine_fingerprint", lambda _: "another")
        elsewhere.setattr(Method, "play", lambda *_: (_ for _ in ()).throw(ValueError("measured anew")))
        assert compare.main(arguments) == 2
        assert "measured anew" in capsys.readouterr().err

    monkeypatch.setattr(Method, "play", lambda *_: pytest.fail("was measured before"))
    monkeypatch.setattr(results, "measure_cost", lambda *_: pytest.fail("was measured before"))
    assert compare.main(arguments) == 0
    assert capsys.readouterr().out == printed.out


def test_whole_photographs_by_one_command(photos: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main(command(photos, weights, "--photographs", "--methods", "input", "cascade")) == 0
    printed = capsys.readouterr().out
    assert "**moderate**, 2 photographs, input" in printed
    assert "GMAC a photograph" in printed


def test_other_weights_behind_a_function_are_another_method() -> None:
    def method(seed: int) -> Method:
        torch.manual_seed(seed)
        tools = Toolbox([FunctionTool("same", torch.nn.Conv2d(3, 3, 1))])
        return Method("m", "m", FixedChain((0,), 1), tools, 12)

    assert method(0).fingerprint() == method(0).fingerprint() != method(1).fingerprint()


@pytest.mark.parametrize("explicit", [False, True])
def test_what_is_compared_with_takes_part_or_its_absence_is_told(
    explicit: bool, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--images", str(photos), "--patches", "2", "--methods", "input"]
    assert compare.main([*words, *(["--reference", "pure"] if explicit else [])]) == 0
    printed = capsys.readouterr()
    assert ("against pure" in printed.out) == explicit
    assert ("no results of the reference default" in printed.err) != explicit


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--methods", "magic"], "unknown method 'magic' of the task same: choose from input,"),
        (["--reference", "magic"], "unknown method 'magic'"),
        (["--weights", "vdsr"], "--weights takes NAME=FILE, got 'vdsr'"),
        (["--weights", "vgg=x"], "unknown baseline 'vgg'"),
        (["--severity", "clean"], "nothing to restore"),
        (["--figure", "x.bmp"], "a figure ends in"),
        (["--json", "no/such/folder/x.json"], "no/such/folder: no such folder"),
        (["--crops", "x.png"], "--crops needs --photographs"),
        (["--task", "x4", "--squeezenet", "none.npz"], "none.npz: no such file"),
        (["--device", "tpu"], "device 'tpu' cannot be used"),
        (["--methods", "published"], "no method gave results; published: give the folder"),
    ],
)
def test_mistakes_are_told_in_one_line(
    more: list[str], message: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare.main(["--images", str(photos), "--patches", "1", *more]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err.splitlines()[-1]


def test_what_is_named_twice_is_measured_once(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    twice = ["--methods", "input", "input", "--severity", "mild", "mild"]
    assert compare.main(["--images", str(photos), "--patches", "1", *twice]) == 0
    printed = capsys.readouterr()
    assert printed.out.count("**mild**") == 1
    assert printed.out.count("| input |") == 2
    assert "[1/1] input" in printed.err


def test_a_cache_that_is_a_file_is_told_before_anything_is_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    for cache in (tmp_path / "file", tmp_path / "file" / "inside"):
        assert compare.main(["--images", str(tmp_path / "none"), "--cache", str(cache)]) == 2
        assert capsys.readouterr().err == (
            f"benchmarks.compare: error: {cache}: no folder, and none can be made there: a file is in its place\n"
        )


def test_damaged_measurements_are_named(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--images", str(photos), "--patches", "1", "--methods", "input", "--cache", str(tmp_path)]
    assert compare.main(words) == 0
    (measured,) = tmp_path.glob("input-*.json")
    measured.write_text("{")
    assert compare.main(words) == 2
    assert f"{measured}: damaged; delete it" in capsys.readouterr().err
