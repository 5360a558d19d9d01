"""The two x4 super-resolvers as tools: their networks by name, their weights, any size of image in bounded memory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore_env.errors import ImageRestoreError
from restore_env.images.tiling import apply_tool
from restore_env.toolbox import FunctionTool, Toolbox, usable_device
from sr_models.generators import UPSCALE
from sr_models.generators.light_net import LightNet
from sr_models.generators.rrdb import RRDBNet
from sr_models.generators.sft_net import SFTNet
from sr_models.prior.semantic_prior import SHIPPED, Prior, check_maps, load_prior
from tools_zoo import default_toolbox as same_size_toolbox
from tools_zoo.backends.folding import steady
from tools_zoo.merging import merge
from tools_zoo.weight_files import load_state, read_weights, recipe_of, write_weights

STAGES = ("psnr", "gan")
"""The stages of training, in order."""
MAX_PIXELS = 192 * 192
"""Input pixels that go through a network at once; more go in tiles or smaller batches."""
SUPER_RESOLVERS = ("sft_gan", "sed")
"""The super-resolvers of the default toolbox, in the order of their actions."""
BY_NAME = (*SUPER_RESOLVERS, "light")
"""All that are shipped; "light" has the PSNR stage alone."""
GENERATORS: Mapping[str, Callable[[], nn.Module]] = MappingProxyType(
    {
        "sft": SFTNet,
        "rrdb_small": partial(RRDBNet, channels=48, growth=16, blocks=4),
        "rrdb": RRDBNet,
        "light": LightNet,
        "light_sft": partial(LightNet, takes_maps=True),
    }
)
"""The generators by the name that weight files use: SFT-Net, RRDBNet at two sizes, LightNet without and with maps."""


class SuperResolverError(ImageRestoreError):
    """A super-resolver that cannot be loaded; the message names the file and says what is wrong, in one line."""


class SuperResolver(nn.Module):
    """A x4 network as a :class:`restore_env.Tool`, with the semantic prior that it needs, if it needs one.

    Images of any size: beyond :data:`MAX_PIXELS` they go through the network in tiles that overlap by its receptive
    field, so that the result is that of the whole image (up to rounding) and memory is bounded.

    Args:
        name: its name in toolchains.
        network: any torch module that takes ``(N, 3, H, W)``, and the maps if it has a true ``takes_maps``, and gives
            ``(N, 3, 4H, 4W)``. It may have ``macs_per_pixel`` and ``receptive_radius``, per input pixel and in input
            pixels; without a radius images never go in tiles.
        prior: makes the maps.

    Raises:
        ValueError: a network that takes maps, without a prior.
    """

    scale, thread_safe = UPSCALE, True
    receptive_radius = None  # the toolbox gives whole images; tiles are cut here, where the maps are known

    def __init__(self, name: str, network: nn.Module, prior: Prior | None = None) -> None:
        super().__init__()
        self.name, self.prior = name, prior
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.takes_maps = bool(getattr(network, "takes_maps", False))
        if self.takes_maps and prior is None:
            raise ValueError(f"{name}: its network takes semantic maps, so it needs a prior")
        self._radius: int | None = getattr(network, "receptive_radius", None)
        parts = (network, prior) if self.takes_maps else (network,)
        self.macs_per_pixel = sum(float(getattr(part, "macs_per_pixel", 0.0)) for part in parts)

    def forward(self, images: Tensor, maps: Tensor | None = None) -> Tensor:
        """Upscale four times.

        Args:
            images: ``(N, 3, H, W)`` float32 RGB in [0, 1].
            maps: ``(N, 8, 4H, 4W)`` probabilities to use in place of the prior's, where the network takes any.

        Returns:
            ``(N, 3, 4H, 4W)``, neither clipped nor rounded.

        Raises:
            ValueError: images or maps of another kind or shape, or maps that are no probabilities.
        """
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point() or not min(images.shape[2:]):
            raise ValueError(
                f"{self.name} takes float RGB images (N, 3, H, W), got {images.dtype} {tuple(images.shape)}"
            )
        images = images.float()
        if maps is not None:
            if not self.takes_maps:
                raise ValueError(f"{self.name} takes no semantic maps")
            maps = check_maps(maps, images)
        count, _, height, width = images.shape
        tiled = height * width > MAX_PIXELS and self._radius is not None
        upscale, batch = (self._in_tiles, 1) if tiled else (self._upscale, max(1, MAX_PIXELS // (height * width)))
        parts = [slice(first, first + batch) for first in range(0, count, batch)]
        outputs = [upscale(images[part], None if maps is None else maps[part]) for part in parts]
        return torch.cat(outputs) if outputs else images.new_empty(0, 3, UPSCALE * height, UPSCALE * width)

    def maps(self, images: Tensor) -> Tensor | None:
        """The prior's maps of images, ``(N, 8, 4H, 4W)``; None where the network takes no maps."""
        return self.prior(images) if self.takes_maps and self.prior is not None else None

    def _upscale(self, images: Tensor, maps: Tensor | None) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        if maps is None:
            maps = self.maps(images)
        upscaled: Tensor = self.network(images) if maps is None else self.network(images, maps)
        count, _, height, width = images.shape
        expected = (count, 3, UPSCALE * height, UPSCALE * width)
        if tuple(upscaled.shape) != expected:
            raise ValueError(f"{self.name}: its network returned {tuple(upscaled.shape)}, expected {expected}")
        return upscaled.contiguous()

    def _in_tiles(self, image: Tensor, maps: Tensor | None) -> Tensor:
        """Upscale one image in tiles; its maps are carried as 128 more channels, 16 values of the 8 maps per pixel."""
        if maps is None:
            maps = self.maps(image)
        carried = image if maps is None else torch.cat([image, F.pixel_unshuffle(maps, UPSCALE)], dim=1)

        def upscale_tile(piece: Tensor) -> Tensor:
            return self._upscale(piece[:, :3], None if maps is None else F.pixel_shuffle(piece[:, 3:], UPSCALE))

        tool = FunctionTool(self.name, upscale_tile, UPSCALE, receptive_radius=self._radius)
        return apply_tool(tool, carried, image.device, tile=int(MAX_PIXELS**0.5))


@dataclass(frozen=True)
class GeneratorWeights:
    """A generator's weights file."""

    network: str
    """A key of :data:`GENERATORS`."""
    stage: str
    """One of :data:`STAGES`."""
    state: Mapping[str, Tensor]
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """How it was trained, as plain numbers and strings."""


def write_generator(path: str | os.PathLike[str], weights: GeneratorWeights) -> None:
    """Write a generator's weights; the file appears whole or not at all."""
    metadata = {"network": weights.network, "stage": weights.stage, "recipe": json.dumps(dict(weights.recipe))}
    write_weights(path, weights.state, metadata)


def read_generator(path: str | os.PathLike[str]) -> GeneratorWeights:
    """Read a generator's weights and check that they are those of the network that the file names.

    Raises:
        SuperResolverError: the file is missing or damaged, or its tensors do not fit.
    """
    path = Path(path)
    state, metadata = read_weights(path, SuperResolverError)
    name = metadata.get("network", "")
    if name not in GENERATORS:
        raise SuperResolverError(f"{path}: unknown network {name!r}; expected one of {', '.join(GENERATORS)}")
    load_state(GENERATORS[name](), state, path, name, SuperResolverError)
    return GeneratorWeights(name, metadata.get("stage", ""), state, recipe_of(metadata, path, SuperResolverError))


def generator_path(name_or_folder: str | os.PathLike[str], stage: str | None = None) -> Path:
    """The weights file of a shipped super-resolver, or of one in a folder that training wrote.

    Without a stage it is the last one that the folder has.

    Raises:
        SuperResolverError: no such super-resolver, or stage.
    """
    folder = SHIPPED / name_or_folder if str(name_or_folder) in BY_NAME else Path(name_or_folder)
    if not folder.is_dir():
        raise SuperResolverError(
            f"{name_or_folder}: no super-resolver; expected {', '.join(BY_NAME)}, a weights file or its folder"
        )
    if stage is None:
        there = [each for each in STAGES if (folder / f"{each}.safetensors").is_file()]
        stage = there[-1] if there else STAGES[0]
    if stage not in STAGES:
        raise SuperResolverError(f"no stage {stage!r}: choose from {', '.join(STAGES)}")
    return folder / f"{stage}.safetensors"


def interpolate(psnr: GeneratorWeights, gan: GeneratorWeights, share: float) -> dict[str, Tensor]:
    """Network interpolation (ESRGAN, section 3.4): ``share`` of the GAN stage's weights, the rest of the PSNR stage's.

    Raises:
        ValueError: two architectures, or a share outside [0, 1].
    """
    if psnr.network != gan.network:
        raise ValueError(f"cannot interpolate between {psnr.network} and {gan.network}: two architectures")
    if not 0 <= share <= 1:
        raise ValueError(f"the GAN stage's share must lie in [0, 1], got {share}")
    return {key: torch.lerp(value, gan.state[key], share) for key, value in psnr.state.items()}


def load_super_resolver(
    name_or_path: str | os.PathLike[str],
    device: str | torch.device = "cpu",
    *,
    stage: str | float | None = None,
    prior: Prior | None = None,
) -> SuperResolver:
    """Load a super-resolver by its shipped name ("sft_gan", "sed", "light"), or from what training wrote.

    Args:
        name_or_path: shipped name, folder of the stages' weights, or weights file.
        device: where it runs.
        stage: "psnr", "gan", or the GAN stage's share, from 0 to 1, to mix the two; None: the last that there is.
        prior: makes the maps; by default the shipped one, if the network takes maps.

    Raises:
        ValueError: a device that cannot be used.
        SuperResolverError: no such super-resolver, or a file that is missing, damaged, or of another network.
    """
    device = usable_device(device)
    path = Path(name_or_path)
    name, files = path.name, [path]
    if path.is_file() or path.suffix == ".safetensors":
        name = path.resolve().parent.name if path.stem in STAGES else path.stem
    elif isinstance(stage, (int, float)):
        files = [generator_path(path, each) for each in STAGES]
    else:
        files = [generator_path(path, stage)]
    weights = [read_generator(file) for file in files]
    mixed = len(files) > 1 and isinstance(stage, (int, float))
    state = interpolate(weights[0], weights[1], float(stage or 0)) if mixed else weights[0].state
    network = GENERATORS[weights[0].network]()
    network.load_state_dict(dict(state))
    if prior is None and getattr(network, "takes_maps", False):
        prior = load_prior()
    return steady(SuperResolver(name, merge(network), prior)).to(device).eval().requires_grad_(False)


def super_resolvers(device: str | torch.device = "cpu") -> list[SuperResolver]:
    """The two super-resolvers of the default toolbox, in the order of their actions."""
    return [load_super_resolver(name, device) for name in SUPER_RESOLVERS]


def with_super_resolvers(toolbox: Toolbox) -> Toolbox:
    """A toolbox with the two super-resolvers behind its own tools; itself if it has any tool that upscales."""
    if any(tool.scale > 1 for tool in toolbox):
        return toolbox
    return Toolbox([*toolbox, *super_resolvers(toolbox.device)], toolbox.device)


def default_toolbox() -> Toolbox:
    """The shipped twelve tools and the two super-resolvers, a fresh copy at each call."""
    return with_super_resolvers(same_size_toolbox())
