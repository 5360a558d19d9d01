"""Backends of the tools' networks: PyTorch optimized for the CPU, plain PyTorch, or ncnn."""

from __future__ import annotations

import copy
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from restore_env.errors import ImageRestoreError
from restore_env.extras import require_extra
from restore_env.toolbox import Toolbox
from tools_zoo.backends.folding import fold, piecewise
from tools_zoo.backends.ncnn_models import ncnn_model, ncnn_runner
from tools_zoo.backends.parity import check_parity

Runner: TypeAlias = Callable[[Tensor], Tensor]
"""Float32 ``(N, 3, H, W)`` on the CPU in and out, any N, H and W; no gradients."""

_PREPARING = threading.Lock()


@dataclass(frozen=True)
class Backend:
    """One of the programs that can run networks on a CPU."""

    prepare: Callable[[nn.Module], Runner]
    """Turns a network on the CPU, which stays as it is, into what runs in its place."""
    extra: str = ""
    """The extra with the package, other than PyTorch, that runs the networks, on the CPU alone."""

    def runs_on(self, device: str) -> bool:
        """Whether it, and not PyTorch in its place, runs networks on this device."""
        return not self.extra or torch.device(device).type == "cpu"


def _plain(network: nn.Module) -> Runner:
    twin = copy.deepcopy(network)
    return twin.to(memory_format=torch.contiguous_format)  # type: ignore[no-any-return, call-overload]


def _folded(network: nn.Module) -> Runner:
    return partial(piecewise, fold(network))


def _by_ncnn(network: nn.Module) -> Runner:
    runner = ncnn_runner(ncnn_model(network))
    check_parity(network, runner, f"{type(network).__name__} by ncnn")
    return runner


BACKENDS: Mapping[str, Backend] = MappingProxyType(
    {
        "torch": Backend(_folded),
        "eager": Backend(_plain),
        "ncnn": Backend(_by_ncnn, "ncnn"),
    }
)
"""PyTorch optimized for the CPU, plain PyTorch, and ncnn."""

DEFAULT_BACKEND = "torch"


class BackendError(ImageRestoreError):
    """A backend that does not exist or cannot be used here; one line."""


def check_backend(name: str) -> Backend:
    """The backend of that name.

    Raises:
        BackendError: there is none, or a package that it needs is not installed.
    """
    backend = BACKENDS.get(name)
    if backend is None:
        raise BackendError(f"unknown backend {name!r}: choose from {', '.join(BACKENDS)}")
    if backend.extra:
        require_extra(backend.extra, f"backend {name!r}", BackendError)
    return backend


def check_runs_on(name: str, device: str) -> None:
    """Raise :class:`BackendError` if :func:`check_backend` does, or if PyTorch would run in its place there."""
    if not check_backend(name).runs_on(device):
        raise BackendError(f"backend {name!r} runs on the CPU alone, not on {device}")


class NetworkTool(nn.Module):
    """A trained network as a :class:`restore_env.Tool`.

    On the CPU, for float32 images and where no gradient is wanted, its backend runs it; it is made ready at the first
    call (again if the weights have changed, or in another process) with PyTorch's number of threads at that time.
    Everything else, GPUs included, is PyTorch's, channels last. Copies and pickles hold the network alone. Several
    threads may call it.

    Args:
        name: of the tool.
        network: ``(N, 3, H, W)`` to the same; it is moved to channels-last memory in place.
        macs_per_pixel: multiply-accumulates per pixel.
        receptive_radius: distance in pixels of the farthest input that an output pixel depends on.
        backend: a key of :data:`BACKENDS`.

    Raises:
        BackendError: no such backend, or a package that it needs is not installed.
        ValueError: when called with anything but ``(N, 3, H, W)``.
    """

    scale, thread_safe = 1, True

    def __init__(
        self,
        name: str,
        network: nn.Module,
        macs_per_pixel: float,
        receptive_radius: int,
        backend: str = DEFAULT_BACKEND,
    ) -> None:
        super().__init__()
        check_backend(backend)
        self.name, self.network = name, network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.macs_per_pixel, self.receptive_radius, self.backend = macs_per_pixel, receptive_radius, backend
        self._prepared: tuple[object, Runner] | None = None

    def forward(self, images: Tensor) -> Tensor:
        """Restore ``(N, 3, H, W)`` float32 RGB."""
        if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
            raise ValueError(f"tool {self.name!r}: expected images (N, 3, H, W), got {tuple(images.shape)}")
        if not len(images):
            return images.clone()
        if self._is_for_backend(images):
            return self._runner()(images)
        if not BACKENDS[self.backend].runs_on(str(images.device)):
            warnings.warn(
                f"backend {self.backend!r} runs on the CPU alone: on {images.device} PyTorch runs the tools",
                RuntimeWarning,
                stacklevel=2,
            )
        restored: Tensor = self.network(images.contiguous(memory_format=torch.channels_last))
        return restored

    def _is_for_backend(self, images: Tensor) -> bool:
        if images.device.type != "cpu" or images.dtype != torch.float32 or self.network.training:
            return False
        if torch.is_autocast_enabled("cpu"):
            return False
        return not torch.is_grad_enabled() or not (
            images.requires_grad or any(weight.requires_grad for weight in self.network.parameters())
        )

    def _runner(self) -> Runner:
        """The prepared network, with its present weights, in this process.

        Changes of weights are detected by their tensors' versions. A write to ``weight.data`` does not raise these:
        load weights with ``load_state_dict`` or under ``torch.no_grad()``.
        """
        versions = [(each.data_ptr(), 0 if each.is_inference() else each._version) for each in _tensors(self.network)]
        key = (os.getpid(), versions)
        prepared = self._prepared
        if prepared is None or prepared[0] != key:
            with _PREPARING:
                prepared = self._prepared
                if prepared is None or prepared[0] != key:
                    prepared = self._prepared = (key, BACKENDS[self.backend].prepare(self.network))
        return prepared[1]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_prepared": None}


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    """Parameters and buffers, a fifth of the time that ``module.parameters()`` takes: this is done at every call."""
    for tensor in (*module._parameters.values(), *module._buffers.values()):
        if tensor is not None:
            yield tensor
    for child in module._modules.values():
        if child is not None:
            yield from _tensors(child)


def with_backend(toolbox: Toolbox, backend: str) -> Toolbox:
    """The same tools, weights shared, run by another backend.

    Tools that are not networks of :class:`NetworkTool`, super-resolvers among them, stay as they are.

    Args:
        toolbox: it stays as it is.
        backend: a key of :data:`BACKENDS`: "torch" (the default), "eager" or "ncnn".

    Raises:
        BackendError: no such backend, or a package that it needs is not installed.
    """
    check_backend(backend)
    tools = (
        NetworkTool(tool.name, tool.network, tool.macs_per_pixel, tool.receptive_radius, backend)
        if isinstance(tool, NetworkTool)
        else tool
        for tool in toolbox
    )
    return Toolbox(list(tools), toolbox.device)
