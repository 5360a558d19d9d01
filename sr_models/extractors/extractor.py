"""Feature extractors of losses, rewards and discriminators: frozen networks that give features at several depths."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tools_zoo.weight_files import load_checkpoint

Network = TypeVar("Network", bound=nn.Module)

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of R, G and B in [0, 1], as networks trained on ImageNet expect them."""


class Extractor(Protocol):
    """Interface of an extractor: SqueezeNet, the trunk of VGG19 or CLIP, or anything called alike.

    Called with ``(N, 3, H, W)`` float RGB in [0, 1], it returns one map ``(N, channels[i], h, w)`` per depth, the
    shallowest first. It normalises its input itself.
    """

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the features, one number per depth."""

    def __call__(self, images: Tensor, /) -> tuple[Tensor, ...]:
        """Features at all depths."""


class Normalize(nn.Module):
    """Subtracts a mean from R, G and B and divides by a standard deviation; no part of a network's weights."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalize ``(N, 3, H, W)``."""
        return (images - self.mean) / self.std


def load_frozen(
    build: Callable[[], Network], path: str | os.PathLike[str], what: str, remedy: str, prefix: str = ""
) -> Network:
    """Build a network with the tensors of its names from a local file, frozen, in evaluation mode.

    Other tensors are ignored, half precision becomes single.

    Args:
        build: makes the network.
        path: ``.safetensors``, ``.npz`` ("/" in its names read as "."), or a state dict saved by ``torch.save`` (read
            without unpickling code).
        what: the network's name, for errors.
        remedy: what a user should do about a file that is missing, for errors.
        prefix: what may stand before the names in the file ("visual.").

    Raises:
        ValueError: the file is missing, damaged, or lacks a tensor, or one has another shape.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected {what}'s weights: {remedy}")
    tensors = _read(path, what, remedy)
    network = build()
    state = {}
    for name, value in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            state[name] = value  # a counter of training steps, without effect in evaluation
            continue
        found = tensors.get(prefix + name, tensors.get(name))
        if found is None or found.shape != value.shape:
            shape = "missing" if found is None else tuple(found.shape)
            raise ValueError(f"{path}: not {what}: {name} is {shape}, expected {tuple(value.shape)}; {remedy}")
        state[name] = found.float()
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def _read(path: Path, what: str, remedy: str) -> Mapping[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return {name.replace("/", "."): torch.from_numpy(file[name]) for name in file.files}
        state = load_checkpoint(path)
    except Exception as error:  # a damaged file makes torch raise nearly anything
        if "TorchScript" in str(error):
            raise ValueError(
                f"{path}: a TorchScript archive, which is a program; save torch.jit.load(path).state_dict() of one that"
                f" you trust by torch.save and give that file, or else {remedy}"
            ) from None
        raise ValueError(
            f"{path}: not a readable {path.suffix} file of tensors ({type(error).__name__}); {remedy}"
        ) from None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path}: not a state dict of tensors; expected {what}: {remedy}")
    return state
