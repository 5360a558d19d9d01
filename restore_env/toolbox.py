"""Tools, and toolboxes that apply them to batches of images."""

from __future__ import annotations

import copy
import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from restore_env.errors import ImageRestoreError, is_out_of_memory


@runtime_checkable
class Tool(Protocol):
    """An image-to-image operation: called with float32 RGB NCHW in [0, 1], it returns the same, ``scale`` times larger.

    Its input may slightly exceed [0, 1], because nothing is clipped between tools. A tool with a true attribute
    ``thread_safe`` may be called from several threads at once; an environment is faster if all its tools have it.
    """

    @property
    def name(self) -> str:
        """Its name in toolchains."""

    @property
    def scale(self) -> int:
        """Upscale factor of the output: 1, or 4 for a super-resolver."""

    @property
    def macs_per_pixel(self) -> float:
        """Multiply-accumulate operations per input pixel."""

    @property
    def receptive_radius(self) -> int | None:
        """Radius of an output pixel's receptive field, input pixels; None if it is the whole image (no tiling then)."""

    def __call__(self, images: Tensor, /) -> Tensor:
        """Restore a batch ``(N, 3, H, W)``."""


@dataclass(frozen=True)
class FunctionTool:
    """Any ``Callable[[Tensor], Tensor]`` as a tool: ``FunctionTool("sharpen", my_module)``."""

    name: str
    function: Callable[[Tensor], Tensor]
    scale: int = 1
    macs_per_pixel: float = 0.0
    receptive_radius: int | None = None
    thread_safe: bool = False
    """Whether several threads may call the function at once."""

    def __call__(self, images: Tensor, /) -> Tensor:
        """Call the function."""
        return self.function(images)

    def __deepcopy__(self, memo: dict[int, Any]) -> FunctionTool:
        """Copy the tool with its own module; a function that is no module is shared."""
        if isinstance(self.function, torch.nn.Module):
            return replace(self, function=copy.deepcopy(self.function, memo))
        return self

    def to(self, device: torch.device) -> FunctionTool:
        """Move the function to a device in place, if it is a torch module."""
        if isinstance(self.function, torch.nn.Module):
            self.function.to(device)
        return self


def bicubic_upscale(images: Tensor, factor: int = 4) -> Tensor:
    """Upscale NCHW images bicubically (a = -0.5) by a whole ``factor``."""
    if factor == 1:
        return images
    height, width = images.shape[-2:]
    return F.interpolate(images, size=(height * factor, width * factor), mode="bicubic", antialias=True)


BICUBIC_X4 = FunctionTool(
    "bicubic_x4", bicubic_upscale, scale=4, macs_per_pixel=16 * 3 * 16, receptive_radius=3, thread_safe=True
)
"""Bicubic x4 upscaling as a tool, the baseline of the super-resolvers."""


class ToolError(ImageRestoreError):
    """A tool failed, or returned what no image can be; one line that names the tool.

    Args:
        message: says what happened.
        row: position in the batch of the image that it happened to; None: all of them.
    """

    def __init__(self, message: object, row: int | None = None) -> None:
        super().__init__(message)
        self.row = row


def call_tool(tool: Tool, images: Tensor, channels: int | None = None) -> Tensor:
    """Call a tool and check what it returns.

    Args:
        tool: the tool.
        images: ``(N, C, H, W)`` float32, which the tool may change.
        channels: of the outputs; None: as the images have.

    Returns:
        ``(N, channels, H * scale, W * scale)``, of the images' type.

    Raises:
        ToolError: the tool raised an error, returned no float tensor, another shape or device, or, on a CPU, NaN or
            infinite values (a GPU would have to be waited for; there the metric finds them).
    """
    n, own, height, width = images.shape
    expected = (n, channels or own, height * tool.scale, width * tool.scale)
    try:
        outputs: object = tool(images)
    except Exception as error:  # a tool of a user may raise anything
        if isinstance(error, ToolError) or is_out_of_memory(error):
            raise
        kind = "" if isinstance(error, ImageRestoreError) else f"{type(error).__name__}: "
        raise ToolError(f"tool {tool.name!r} failed: {kind}{error}") from error
    if not isinstance(outputs, Tensor) or not outputs.is_floating_point():
        given = outputs.dtype if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ToolError(f"tool {tool.name!r} returned {given}, expected a float tensor of shape {expected}")
    if tuple(outputs.shape) != expected:
        raise ToolError(f"tool {tool.name!r} returned shape {tuple(outputs.shape)}, expected {expected}")
    if outputs.device.type != images.device.type:
        raise ToolError(f"tool {tool.name!r} returned a tensor on {outputs.device}, expected one on {images.device}")
    outputs = outputs.to(images)
    if outputs.device.type == "cpu" and not math.isfinite(outputs.detach().sum()):
        finite = torch.isfinite(outputs.detach()).flatten(1).all(1)
        row = None if finite.all() else int(torch.nonzero(~finite)[0])
        if row is not None:  # else the sum alone is too large
            raise ToolError(f"tool {tool.name!r} returned NaN or infinite values", row)
    return outputs


class Toolbox:
    """A list of tools. Action ``i`` is tool ``i``; the action after the last tool is ``stop``.

    Args:
        tools: tools with different names.
        device: where the tools run; tools with a method ``to`` are moved there.

    Raises:
        ValueError: no tools, an object that is not a tool, two tools of one name, one called "stop", or a scale that is
            not a positive whole number.
    """

    STOP_NAME = "stop"

    def __init__(self, tools: Sequence[Tool], device: str | torch.device = "cpu") -> None:
        self.tools = tuple(tools)
        if not self.tools:
            raise ImageRestoreError("a toolbox needs one tool or more")
        for tool in self.tools:
            if not isinstance(tool, Tool):
                raise ImageRestoreError(
                    f"{tool!r} is not a tool: it needs name, scale, macs_per_pixel, receptive_radius and a call."
                    ' A plain function becomes one by FunctionTool("its name", function)'
                )
            if int(tool.scale) != tool.scale or tool.scale < 1:
                raise ImageRestoreError(
                    f"tool {tool.name!r} has scale {tool.scale}; expected a whole number of 1 or more"
                )
        names = [tool.name for tool in self.tools]
        doubles = sorted({name for name in names if names.count(name) > 1})
        if doubles or self.STOP_NAME in names:
            raise ImageRestoreError(
                f"tool names must differ and none may be 'stop'; got {', '.join(doubles) or 'stop'}"
            )
        self.names = tuple(names)
        """The tools' names, in the order of their actions (without "stop")."""
        self._actions = (*self.names, self.STOP_NAME)
        self.scales = _constant([tool.scale for tool in self.tools], np.int64)
        """Each tool's scale, ``(len,)``."""
        self.macs_per_pixel = _constant([tool.macs_per_pixel for tool in self.tools], np.float64)
        """Each tool's multiply-accumulates per input pixel, ``(len,)``."""
        self.to(device)

    def __len__(self) -> int:
        return len(self.tools)

    def __getitem__(self, index: int) -> Tool:
        return self.tools[index]

    def __iter__(self) -> Iterator[Tool]:
        return iter(self.tools)

    @property
    def stop(self) -> int:
        """The action that ends an episode, the last one."""
        return len(self.tools)

    def action(self, name: str) -> int:
        """The action with this name, "stop" included; raise ``ValueError`` that lists the names for an unknown one."""
        if name not in self._actions:
            raise ImageRestoreError(f"no tool {name!r} in this toolbox: choose from {', '.join(self._actions)}")
        return self._actions.index(name)

    def name(self, action: int) -> str:
        """The name of an action, "stop" included."""
        return self._actions[action]

    def to(self, device: str | torch.device) -> Toolbox:
        """Move every tool that has a method ``to`` to ``device``, in place; return the toolbox."""
        self.device = usable_device(device)
        for tool in self.tools:
            move = getattr(tool, "to", None)
            if callable(move):
                move(self.device)
        return self

    def on(self, device: str | torch.device | None) -> Toolbox:
        """The toolbox itself if ``device`` is None or its own, else a copy on ``device``."""
        if device is None or usable_device(device) == self.device:
            return self
        copied = copy.copy(self)
        copied.tools = tuple(copy.deepcopy(tool) if hasattr(tool, "to") else tool for tool in self.tools)
        return copied.to(device)

    def groups(
        self, images: Tensor, actions: npt.NDArray[np.int64] | Sequence[int]
    ) -> Iterator[tuple[npt.NDArray[np.int64], Tensor]]:
        """Run each chosen tool once, on all images with its action.

        Args:
            images: ``(N, 3, H, W)`` float32.
            actions: ``(N,)``; images whose action is ``stop`` are left out.

        Yields:
            ``(rows, outputs)``: positions of the images, and the outputs ``(len(rows), 3, H * scale, W * scale)``.
        """
        actions = self._checked(actions, len(images))
        order = np.argsort(actions, kind="stable")[: np.count_nonzero(actions != self.stop)]
        chosen, first = np.unique(actions[order], return_index=True)
        sorted_images = images.index_select(0, torch.from_numpy(order).to(images.device))  # one copy, a slice per tool
        bounds = itertools.pairwise([*first.tolist(), len(order)])
        for action, (start, stop) in zip(chosen.tolist(), bounds, strict=True):
            yield order[start:stop], self.run(action, sorted_images[start:stop], owned=True)

    def run(self, action: int, images: Tensor, *, owned: bool = False) -> Tensor:
        """Run one tool on a batch; protect the caller's images and check the output.

        Args:
            action: the tool's number.
            images: ``(N, 3, H, W)`` float32; not changed, even by a tool that works in place.
            owned: the images may be changed, because the caller does not need them afterwards.

        Returns:
            ``(N, 3, H * scale, W * scale)``, of the images' type and on their device.

        Raises:
            ToolError: as :func:`call_tool` does.
        """
        return call_tool(self.tools[action], images if owned else images.clone())

    def apply(self, images: Tensor, actions: npt.NDArray[np.int64] | Sequence[int]) -> Tensor:
        """Apply to each image the tool of its action; ``stop`` leaves an image unchanged.

        Args:
            images: ``(N, 3, H, W)`` float32.
            actions: ``(N,)``.

        Returns:
            ``(N, 3, H * scale, W * scale)``, a new tensor.

        Raises:
            ValueError: the chosen tools differ in scale, so the results differ in size (use ``groups``).
        """
        actions = self._checked(actions, len(images))
        scales = {1 if action == self.stop else int(self.tools[action].scale) for action in np.unique(actions)}
        if len(scales) > 1:
            raise ImageRestoreError(f"the chosen tools upscale by {sorted(scales)}: the results are not of one size")
        scale = scales.pop() if scales else 1
        height, width = images.shape[-2:]
        result = images.clone() if scale == 1 else images.new_empty(len(images), 3, height * scale, width * scale)
        for rows, outputs in self.groups(images, actions):
            result[torch.from_numpy(rows).to(images.device)] = outputs
        return result

    def _checked(self, actions: npt.NDArray[np.int64] | Sequence[int], count: int) -> npt.NDArray[np.int64]:
        actions = np.asarray(actions)
        if actions.shape != (count,):
            raise ImageRestoreError(f"{count} images need as many actions, got shape {actions.shape}")
        if count and not 0 <= actions.min() <= actions.max() <= self.stop:
            raise ImageRestoreError(f"actions must lie in 0..{self.stop}, got {actions.min()}..{actions.max()}")
        return actions


def _constant(values: Sequence[float], dtype: type[Any]) -> npt.NDArray[Any]:
    array = np.array(values, dtype=dtype)
    array.flags.writeable = False
    return array


ToolboxLike: TypeAlias = "Toolbox | Sequence[Tool] | str | os.PathLike[str] | Callable[[], Toolbox]"
"""A toolbox, tools, a factory or its import string, ``"package.module:name"``, a shipped one's name, or a folder."""


def usable_device(device: str | torch.device) -> torch.device:
    """Return the device, with its index, after trying it; raise ``ValueError`` in one line if it does not exist."""
    try:
        trial = torch.zeros(1, device=device)
        float(trial)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ImageRestoreError(f"device {str(device)!r} cannot be used: {reason}") from None
    return trial.device
