"""The command line in this process with a small model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from agents.agent import RecurrentAgent, save_policy
from agents.cli import main
from tools_zoo.networks import NETWORKS, last_layer
from tools_zoo.toolboxes import ToolWeights, update_toolbox

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
