"""The command line in this process with a small model, and the files that tests of it are made with."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from agents.cli import main
from agents.network import RecurrentAgent, save_policy
from tools_zoo.networks import NETWORKS, last_layer
from tools_zoo.toolboxes import ToolWeights, update_toolbox

Pixels = npt.NDArray[np.uint8]
TOOLS = ("denoise_2", "denoise_3", "dejpeg_1")


@dataclass(frozen=True)
class Shell:
    """Runs ``imagerestore`` in this process with a small random toolbox, and an agent that always takes a tool."""

    model: tuple[str, ...]
    folder: Path
    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str | Path, model: bool = True) -> tuple[int, str, str]:
        """Return exit code, standard output and standard error, each as the file descriptor saw it."""
        self.capture.readouterr()
        try:
            code = main([*map(str, arguments), *(self.model if model else ())])
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = self.capture.readouterr()
        return code, out, err

    def listing(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*"))


def write_model(folder: Path) -> tuple[str, ...]:
    """Write a toolbox and an agent, and return the arguments that choose them."""
    torch.manual_seed(0)
    weights = []
    for name in TOOLS:
        network = "eight_layer" if name == "denoise_3" else "three_layer"
        module = NETWORKS[network]()
        last_layer(module).weight.data.mul_(0.2)
        weights.append(ToolWeights(name, network, module.state_dict()))
    update_toolbox(folder / "tools", weights)
    agent = RecurrentAgent(TOOLS)
    agent.head.bias.data[-1] = -100  # never stop
    agent.head.bias.data[1] = -100  # nor the slow tool
    save_policy(agent, folder / "agent.safetensors")
    return "--toolbox", str(folder / "tools"), "--policy", str(folder / "agent.safetensors")


def assert_one_line(err: str, *parts: str) -> None:
    assert err.count("\n") == 1, err
    assert err.startswith("imagerestore"), err
    assert ": error: " in err, err
    assert "Traceback" not in err, err
    for part in parts:
        assert part in err, err


def picture(height: int = 30, width: int = 45) -> Pixels:
    corners = np.random.default_rng(3).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(corners).resize((width, height), Image.Resampling.BICUBIC))


def encode(pixels: Pixels | Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def encode_deep(suffix: str, pixels: npt.NDArray[Any]) -> bytes:
    done, data = cv2.imencode(suffix, pixels)
    assert done
    return data.tobytes()


def float_tiff(value: float) -> bytes:
    pixels = np.full((6, 7, 3), 0.5, np.float32)
    pixels[2, 3, 1] = value
    return encode_deep(".tif", pixels)
