"""Small tools, photographs and policies that the tests share."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from agents.agent import RecurrentAgent
from restore_env.images.sources import ImageSource, open_images
from restore_env.toolbox import BICUBIC_X4, FunctionTool, Toolbox
from tools_zoo.backends.network_tool import NetworkTool
from tools_zoo.catalog import TOOLS
from tools_zoo.networks import NETWORKS

Observation = dict[str, npt.NDArray[Any]]
Script = Callable[[Observation], Sequence[int] | npt.NDArray[np.int64]]


def pixelwise_tools() -> list[FunctionTool]:
    """Tools whose arithmetic does not depend on the batch's size, so that equality can be exact."""
    return [
        FunctionTool("brighten", lambda images: images * 1.1, macs_per_pixel=3, receptive_radius=0),
        FunctionTool("dim", lambda images: images * 0.9, macs_per_pixel=3, receptive_radius=0),
        FunctionTool("invert", lambda images: 1 - images, macs_per_pixel=6, receptive_radius=0),
    ]


def double_pixels(images: torch.Tensor) -> torch.Tensor:
    """Enlarge four times by repeating pixels."""
    return images.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)


def pixelwise_toolbox(super_resolver: bool = False) -> Toolbox:
    """A toolbox of :func:`pixelwise_tools`, with a x4 tool if wanted."""
    extra = (
        [FunctionTool("nearest_x4", double_pixels, scale=4, macs_per_pixel=0, receptive_radius=0)]
        if super_resolver
        else []
    )
    return Toolbox([*pixelwise_tools(), *extra])


def random_toolbox(seed: int = 0, super_resolver: bool = False) -> Toolbox:
    """The twelve tools with random weights, and bicubic x4 if wanted."""
    torch.manual_seed(seed)
    tools = []
    for spec in TOOLS:
        network = NETWORKS[spec.network()]().eval().requires_grad_(False)
        tools.append(NetworkTool(spec.name, network, network.macs_per_pixel, network.receptive_radius))
    return Toolbox([*tools, BICUBIC_X4] if super_resolver else tools)


def softened(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Stands in for a perceptual quality: minus the distance of what small convolutions see, per image."""
    kernel = torch.linspace(-1, 1, 27).reshape(1, 3, 3, 3)
    seen = [torch.relu(torch.nn.functional.conv2d(batch, kernel, stride=2)) for batch in (images, targets)]
    return -(seen[0] - seen[1]).abs().mean((1, 2, 3), dtype=torch.float64)


def inverted() -> Any:
    """A distortion of one's own: the negative."""
    albumentations: Any = importlib.import_module("albumentations")
    return albumentations.Compose([albumentations.InvertImg(p=1)])


def photographs(count: int = 3, height: int = 280, width: int = 300, seed: int = 0) -> list[npt.NDArray[np.uint8]]:
    """Smooth random pictures."""
    rng = np.random.default_rng(seed)
    pictures = []
    for _ in range(count):
        coarse = torch.from_numpy(rng.random((1, 3, height // 20, width // 20), dtype=np.float32))
        fine = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)
        pictures.append((fine[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8))
    return pictures


def source() -> ImageSource:
    """Two small photographs to train on."""
    opened = open_images(photographs(2, 120, 140), min_size=20)
    assert isinstance(opened, ImageSource)
    return opened


def picture(height: int = 16, width: int = 24) -> npt.NDArray[np.uint8]:
    """Noise of this size."""
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


class Scripted:
    """A policy that plays a script, a function per step, and writes down what it was shown."""

    def __init__(self, *script: Script, patch_size: int = 8, **recipe: Any) -> None:
        self.script, self.patch_size, self.recipe = script, patch_size, recipe
        self.seen: list[Observation] = []

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[npt.NDArray[np.int64], Any]:
        assert deterministic
        assert episode_start is not None
        assert episode_start.tolist() == [not self.seen] * len(observation["image"])
        self.seen.append(observation)
        step = min(len(self.seen), len(self.script)) - 1
        return np.asarray(self.script[step](observation), dtype=np.int64), None


def always(*actions: int) -> Script:
    """A step at which the tiles take these actions in turn, whatever they see."""
    return lambda observation: (list(actions) * len(observation["image"]))[: len(observation["image"])]


def random_agent(tools: tuple[str, ...], seed: int = 0) -> RecurrentAgent:
    """An agent with large random weights, whose choices vary."""
    torch.manual_seed(seed)
    agent = RecurrentAgent(tools).eval().requires_grad_(False)
    for parameter in agent.parameters():
        parameter.mul_(3)
    return agent
