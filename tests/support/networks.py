"""Networks for tests of what runs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_models.generators.light_net import LightNet
from sr_models.generators.rrdb import RRDBNet
from sr_models.generators.sft_net import SFTNet
from tools_zoo.backends.network_tool import NetworkTool
from tools_zoo.networks import NETWORKS

TOLERANCE = 1e-5
TINY_GENERATORS: Mapping[str, Callable[[], Any]] = MappingProxyType(
    {
        "sft": partial(SFTNet, 8, 1),
        "rrdb_small": partial(RRDBNet, 8, 4, 1),
        "light": partial(LightNet, 8, 2),
        "light_sft": partial(LightNet, 8, 2, takes_maps=True),
    }
)
"""Small generators by the names of the shipped ones."""


class OtherLayers(nn.Module):
    """A network of other layers than the shipped ones: strided, transposed and grouped convolutions, and a skip."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 8, 3, padding="same", padding_mode="reflect")
        self.down = nn.Conv2d(8, 16, 4, stride=2, padding=1)
        self.deep = nn.Conv2d(16, 16, 3, padding=2, dilation=2, groups=2)
        self.up = nn.ConvTranspose2d(16, 8, 4, stride=2, padding=1)
        self.mix = nn.Conv2d(16, 12, 1, bias=False)
        self.leave = nn.Conv2d(12, 3, (3, 5), padding=(1, 2), bias=False)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        shallow = F.relu(self.enter(F.pad(images, (0, width % 2, 0, height % 2), mode="replicate")))
        deep = F.relu(self.up(F.relu(self.deep(F.relu(self.down(shallow))))))
        change: Tensor = self.leave(self.mix(torch.cat([shallow, deep], dim=1)))
        return images + change[..., :height, :width]


class Computing(nn.Module):
    """A network that is a function."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Any:
        return self.function(images)


def network_of(name: str) -> nn.Module:
    torch.manual_seed(0)
    network = OtherLayers() if name == "other_layers" else NETWORKS[name]()
    for parameter in network.parameters():
        if not parameter.any():  # it would hide what comes before it
            nn.init.normal_(parameter, 0, 0.1)
    return network.eval().requires_grad_(False)


def tool_of(name: str, backend: str) -> NetworkTool:
    return NetworkTool(name, network_of(name), macs_per_pixel=1.0, receptive_radius=20, backend=backend)
