from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents.cli import main
from restore_env.extras import EXTRAS
from tests.support.networks import Computing
from tests.support.toolkit import random_toolbox
from tools_zoo import load_toolbox
from tools_zoo.backends.network_tool import NetworkTool
from tools_zoo.backends.onnx_export import export_tool, onnx_model
from tools_zoo.backends.parity import ParityError
from tools_zoo.networks import NETWORKS

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def runtime() -> Any:
    """ONNX Runtime, where the extra is installed."""
    for name in EXTRAS["onnx"]:
        pytest.importorskip(name, reason="export needs the extra onnx")
    return pytest.importorskip("onnxruntime")


def first_tool() -> NetworkTool:
    tool = random_toolbox()[0]
    assert isinstance(tool, NetworkTool)
    return tool


@pytest.mark.parametrize(("toolbox", "tool"), [("default", "denoise_3"), ("classic", "deblur_2")])
def test_exported_tools_do_what_the_tools_do(
    tmp_path: Path, runtime: Any, capsys: pytest.CaptureFixture[str], toolbox: str, tool: str
) -> None:
    out = tmp_path / "new" / "folder"
    assert main(["export", "onnx", "--toolbox", toolbox, "--out", str(out), "--tool", tool]) == 0
    assert [path.name for path in out.iterdir()] == [f"{tool}.onnx"]
    assert "differs from PyTorch by" in capsys.readouterr().out
    session = runtime.InferenceSession(out / f"{tool}.onnx", providers=["CPUExecutionProvider"])
    tools = load_toolbox(toolbox, backend="eager")
    own = tools[tools.action(tool)]
    for shape in ((1, 3, 63, 63), (4, 3, 20, 31), (2, 3, 33, 40)):
        images = torch.rand(shape)
        outputs = session.run(["restored"], {"images": images.numpy()})[0]
        assert outputs.dtype == np.float32
        torch.testing.assert_close(torch.from_numpy(outputs), own(images), rtol=0, atol=1e-5)
    facts = session.get_modelmeta().custom_metadata_map
    assert (facts["name"], int(facts["scale"]), int(facts["receptive_radius"])) == (tool, 1, own.receptive_radius)
    assert float(facts["macs_per_pixel"]) == own.macs_per_pixel


@pytest.mark.usefixtures("runtime")
def test_a_model_of_other_results_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def another(network: torch.nn.Module, facts: dict[str, Any]) -> bytes:
        torch.manual_seed(9)
        return onnx_model(NETWORKS["three_layer"]().eval(), facts)

    monkeypatch.setattr("tools_zoo.backends.onnx_export.onnx_model", another)
    path = tmp_path / "tool.onnx"
    with pytest.raises(ParityError, match=r"tool\.onnx: differs from PyTorch by [\d.e-]+, more than 1e-05"):
        export_tool(first_tool(), path)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("runtime")
def test_unknown_tools_are_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["export", "onnx", "--out", str(out), "--tool", "denoise_1", "sharpen"]) == 2
    assert capsys.readouterr().err.startswith("imagerestore: error: no tool 'sharpen' in this toolbox: choose from deb")
    assert not out.exists()


def test_without_the_extra_the_command_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    assert main(["export", "onnx", "--out", "out"]) == 2
    error = capsys.readouterr().err
    assert "export needs onnx, which is not installed: pip install 'imagerestore[onnx]'" in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("runtime")
def test_a_network_that_cannot_be_converted_is_named() -> None:
    sorter = Computing(lambda images: images if float(images.sum()) > 0 else -images)
    with pytest.raises(ParityError, match=r"^Computing cannot be converted to ONNX: "):
        onnx_model(sorter, {})
