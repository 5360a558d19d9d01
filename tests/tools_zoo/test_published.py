"""Imported networks compute what their checkpoints say, and toolboxes are compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

import benchmarks.tools
from agents.agent import load_policy
from restore_env.metrics import psnr
from restore_env.toolbox import Toolbox
from tests.support.bundles import CELL, Bundle
from tools_zoo.catalog import TOOLS
from tools_zoo.published.checkpoints import SOURCE, import_rl_restore
from tools_zoo.toolboxes import load_toolbox, read_tool


@pytest.fixture(scope="module")
def imported(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return import_rl_restore(pristine, tmp_path_factory.mktemp("imported") / "deep" / "toolbox")


# What the networks should compute, written from their published form: HWIO kernels on images with swapped axes -------


def published_conv(images: Tensor, bundle: Bundle, weights: str, biases: str, stride: int = 1) -> Tensor:
    kernel = torch.tensor(bundle[weights]).permute(3, 2, 0, 1)
    pads: list[int] = []
    for size in (images.shape[3], images.shape[2]):
        missing = max(0, (-(-size // stride) - 1) * stride + kernel.shape[-1] - size)
        pads += [missing // 2, missing - missing // 2]
    return F.conv2d(F.pad(images, pads), kernel, torch.tensor(bundle[biases]), stride=stride)


def published_tool(images: Tensor, bundle: Bundle) -> Tensor:
    def conv(x: Tensor, name: str) -> Tensor:
        return published_conv(x, bundle, f"{name}/weights", f"{name}/biases")

    swapped = images.transpose(2, 3)
    if "conv1_2/weights" not in bundle:
        return (swapped + conv(conv(conv(swapped, "conv1").relu(), "conv2").relu(), "conv3")).transpose(2, 3)
    x = conv(conv(swapped, "conv1").relu(), "conv1_2")
    x = x + conv(conv(x.relu(), "conv2").relu(), "conv2a")
    x = x + conv(conv(x.relu(), "conv2c").relu(), "conv2d")
    return (swapped + conv(conv(x, "conv2_2").relu(), "conv3")).transpose(2, 3)


def published_q(images: Tensor, actions: list[Tensor], bundle: Bundle) -> list[Tensor]:
    """Q values of as many steps as there are previous actions, the image staying as it is."""
    x = images.transpose(2, 3)
    for layer in range(1, 5):
        x = published_conv(x, bundle, f"prediction/l{layer}/w", f"prediction/l{layer}/biases", stride=2).relu()
    variables = {name: torch.tensor(value) for name, value in bundle.items()}
    flat = x.permute(0, 2, 3, 1).flatten(1)
    embedded = (flat @ variables["prediction/l7/Matrix"] + variables["prediction/l7/bias"]).relu()
    hidden = cell = torch.zeros(len(images), 50)
    steps = []
    for action in actions:
        inputs = torch.cat([embedded, F.one_hot(action, 14)[:, :12].float(), hidden], dim=1)
        i, j, f, o = (inputs @ variables[f"{CELL}/kernel"] + variables[f"{CELL}/bias"]).chunk(4, dim=1)
        cell = torch.sigmoid(f + 1) * cell + torch.sigmoid(i) * torch.tanh(j)
        hidden = torch.sigmoid(o) * torch.tanh(cell)
        steps.append(hidden @ variables["prediction/q/Matrix"] + variables["prediction/q/bias"])
    return steps


# Without the published data -----------------------------------------------------------------------------------------


def test_imported_tools_compute_what_the_bundles_say(imported: Path, bundles: dict[str, Bundle]) -> None:
    images = torch.rand(2, 3, 31, 24, generator=torch.Generator().manual_seed(0))
    toolbox = load_toolbox(imported)
    assert toolbox.names == tuple(spec.name for spec in TOOLS)
    for number, tool in enumerate(toolbox, 1):
        expected = published_tool(images, bundles[f"toolbox/tool{number:02d}"])
        torch.testing.assert_close(tool(images), expected, atol=1e-5, rtol=0)
        assert (tool(images) - images).abs().max() > 1e-2
    recipe = read_tool(imported / "deblur_3.safetensors", "eight_layer").recipe
    assert (recipe["source"], recipe["checkpoint"]) == (SOURCE, "tool03")


def test_imported_agent_computes_what_the_bundle_says(imported: Path, bundles: dict[str, Bundle]) -> None:
    images = torch.rand(3, 3, 63, 63, generator=torch.Generator().manual_seed(0))
    actions = [torch.full((3,), 13), torch.tensor([0, 5, 11]), torch.tensor([3, 12, 7])]
    agent = load_policy(imported / "agent.safetensors")
    assert (agent.kind, agent.tools) == ("q", tuple(spec.name for spec in TOOLS))
    state = (torch.zeros(1, 3, 50), torch.zeros(1, 3, 50))
    for action, expected in zip(actions, published_q(images, actions, bundles["models/model"]), strict=True):
        scores, state = agent(images, action, state)
        torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-5)


# The comparison of toolboxes ----------------------------------------------------------------------------------------


def test_benchmark_prints_and_writes_its_numbers(
    imported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photographs, numbers = tmp_path / "photographs", tmp_path / "numbers.json"
    photographs.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (80, 96, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(photographs / "noise.png")
    command = ["--images", str(photographs), "--toolbox", str(imported), "--against", str(imported)]
    command += ["--patches", "2", "--seed", "3", "--json", str(numbers)]
    assert benchmarks.tools.main(command) == 0
    lines = capsys.readouterr().out.splitlines()[: 2 + len(TOOLS)]
    assert lines[0].startswith(
        "| tool | distortion | network | input, dB | ours, dB | published, dB | difference, dB |"
    )
    assert lines[4].startswith("| deblur_3 | blur, sigma 2.5 to 3.75 px | eight_layer | ")
    assert all(line.endswith("| +0.00 |") for line in lines[2:])
    record = json.loads(numbers.read_text())
    assert record["command"].startswith("python -m benchmarks.tools --images photographs --toolbox ")
    assert record["command"].endswith("--patches 2 --seed 3 --json numbers.json")
    assert record["tables"].startswith("| tool |")
    assert [row["tool"] for row in record["tools"]] == [spec.name for spec in TOOLS]
    for wrong in (["--images", "nowhere"], ["--toolbox", "nowhere"], ["--json", "nowhere/numbers.json"]):
        assert benchmarks.tools.main([*command, *wrong]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.count("\n") == 1
        assert "nowhere: no " in printed.err


def test_every_tool_is_measured_on_the_patches_of_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photographs").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (80, 96, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("photographs/noise.png")
    command = ["--images", "photographs", "--patches", "2"]
    assert benchmarks.tools.main([*command, "--severity", "mixed", "--json", "numbers.json"]) == 0
    rows = json.loads(Path("numbers.json").read_text())["choices"]
    assert [row["tool"] for row in rows] == [spec.name for spec in TOOLS]
    assert all(sum(row["chosen"]) == pytest.approx(1) and len(row["gains"]) == len(TOOLS) for row in rows)
    assert "| honest |" in capsys.readouterr().out
    assert benchmarks.tools.main([*command, "--severity", "mixed", "--against", "classic"]) == 2
    assert "leave out --severity" in capsys.readouterr().err


def test_a_tool_is_honest_that_is_chosen_most_and_gains_most() -> None:
    rest = (0.0,) * (len(TOOLS) - 2)
    for gains, chosen, honest in (
        ((1.0, 0.5), (0.6, 0.4), True),
        ((0.96, 1.0), (0.6, 0.4), True),
        ((0.9, 1.0), (0.6, 0.4), False),
        ((1.0, 0.5), (0.4, 0.6), False),
    ):
        choice = benchmarks.tools.FirstChoice(TOOLS[0].name, (*gains, *rest), (*chosen, *rest))
        assert choice.honest == honest


# With the published data --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return import_rl_restore(published, tmp_path_factory.mktemp("real") / "rl_restore")


def read_folder(folder: Path) -> Tensor:
    arrays = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.iterdir())]
    return torch.tensor(np.stack(arrays)).permute(0, 3, 1, 2) / 255


def read_expected(array: npt.NDArray[np.float32]) -> Tensor:
    """NHWC of the expected outputs as NCHW RGB: their files hold the channels as B, G, R."""
    return torch.tensor(array[..., ::-1].copy()).movedim(-1, -3)


def test_published_tools_are_reproduced(published: Path, real: Path) -> None:
    images = read_folder(published / "test" / "moderate_in")
    expected = read_expected(np.load(published / "expected" / "tools_on_moderate.npz")["outputs"])
    with torch.inference_mode():
        for tool, outputs in zip(load_toolbox(real), expected, strict=True):
            assert (tool(images) - outputs).abs().max() <= 1e-5, tool.name


@pytest.mark.parametrize("severity", ["mild", "moderate", "severe"])
def test_published_agent_is_reproduced(severity: str, published: Path, real: Path) -> None:
    expected: dict[str, Any] = json.loads((published / "expected" / "agent.json").read_text())[severity]
    images = read_folder(published / "test" / f"{severity}_in")
    targets = read_folder(published / "test" / f"{severity}_gt")
    toolbox: Toolbox = load_toolbox(real)
    agent = load_policy(real)
    last = torch.full((len(images),), len(toolbox) + 1)
    state = (torch.zeros(1, len(images), 50), torch.zeros(1, len(images), 50))
    for step in expected["steps"]:
        with torch.inference_mode():
            scores, state = agent(images, last, state)
        np.testing.assert_allclose(scores.numpy(), step["q"], atol=1e-4, rtol=0)
        assert scores.argmax(1).tolist() == step["action"]
        last = torch.tensor(step["action"])
        images = toolbox.apply(images, step["action"])
        np.testing.assert_allclose(psnr(images, targets).numpy(), step["psnr"], atol=1e-4)
    final = read_expected(np.load(published / "expected" / f"{severity}.npz")["final"])
    assert (images - final).abs().max() <= 1e-5
