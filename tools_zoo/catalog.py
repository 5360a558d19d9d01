"""The twelve tools of RL-Restore as data: the distortion, its range of strength, and the size of the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from restore_env.distortions.protocol import Levels

Kind = Literal["blur", "noise", "jpeg"]
Size = Literal["small", "large"]

SHAPES: Mapping[str, Mapping[Size, str]] = MappingProxyType(
    {
        "published": {"small": "three_layer", "large": "eight_layer"},
        "hourglass": {"small": "hourglass_32", "large": "hourglass_48"},
    }
)
"""The shapes that a toolbox can have: the networks of its small and its large tools."""


@dataclass(frozen=True)
class ToolSpec:
    """One row of the table."""

    name: str
    kind: Kind
    """Which distortion the tool undoes."""
    low: float
    """Lower end of its band: sigma in pixels (blur), sigma of 255 (noise), quality (JPEG)."""
    high: float
    """Where its band ends."""
    size: Size
    """Of its network: :data:`SHAPES` says which one."""
    parent: str | None
    """The tool whose weights training starts from; None: from random weights."""

    def network(self, shapes: str = "published") -> str:
        """The network in toolboxes of these shapes: a key of :data:`tools_zoo.networks.NETWORKS`."""
        return SHAPES[shapes][self.size]


TOOLS: tuple[ToolSpec, ...] = (
    ToolSpec("deblur_1", "blur", 0.0, 1.25, "small", "denoise_1"),
    ToolSpec("deblur_2", "blur", 1.25, 2.5, "small", "deblur_1"),
    ToolSpec("deblur_3", "blur", 2.5, 3.75, "large", "denoise_3"),
    ToolSpec("deblur_4", "blur", 3.75, 5.0, "large", "deblur_3"),
    ToolSpec("denoise_1", "noise", 0.0, 12.5, "small", "denoise_2"),
    ToolSpec("denoise_2", "noise", 12.5, 25.0, "small", None),
    ToolSpec("denoise_3", "noise", 25.0, 37.5, "large", None),
    ToolSpec("denoise_4", "noise", 37.5, 50.0, "large", "denoise_3"),
    ToolSpec("dejpeg_1", "jpeg", 60, 100, "small", "dejpeg_2"),
    ToolSpec("dejpeg_2", "jpeg", 35, 60, "small", "denoise_1"),
    ToolSpec("dejpeg_3", "jpeg", 20, 35, "large", "denoise_3"),
    ToolSpec("dejpeg_4", "jpeg", 10, 20, "large", "dejpeg_3"),
)
"""The toolbox, in the order of its actions (Yu et al., CVPR 2018, table 1)."""

SPECS = {spec.name: spec for spec in TOOLS}

KINDS: tuple[Kind, ...] = ("blur", "noise", "jpeg")
"""In the order of :attr:`restore_env.distortions.protocol.Levels.strengths`."""


def tools_of(strengths: tuple[float, float, float]) -> list[ToolSpec]:
    """The tools of a distortion's parts, the strongest part first: for each, the one whose band holds its strength.

    Args:
        strengths: of blur, noise and compression, as ``Levels.strengths`` gives them.
    """
    parts = sorted((-strength, number) for number, strength in enumerate(strengths) if strength > 0)
    return [_tool_of(KINDS[number], -strength) for strength, number in parts]


def _tool_of(kind: Kind, strength: float) -> ToolSpec:
    of_kind = [spec for spec in TOOLS if spec.kind == kind]
    return next((spec for spec in of_kind if strength <= _band_end(spec)), of_kind[-1])


def _band_end(spec: ToolSpec) -> float:
    """Where a tool's band ends, on the scale of strengths."""
    if spec.kind == "jpeg":
        return Levels(jpeg_quality=int(spec.low)).strengths[2]
    end = Levels(blur_sigma=spec.high) if spec.kind == "blur" else Levels(noise_sigma=spec.high)
    return max(end.strengths)


def training_order(names: tuple[str, ...]) -> list[ToolSpec]:
    """The named tools, every parent before its children.

    Raises:
        ValueError: an unknown name.
    """
    unknown = [name for name in names if name not in SPECS]
    if unknown:
        raise ValueError(f"unknown tool {unknown[0]!r}: choose from {', '.join(SPECS)}")
    ordered: list[ToolSpec] = []

    def visit(spec: ToolSpec) -> None:
        if spec.parent is not None:
            visit(SPECS[spec.parent])
        if spec.name in names and spec not in ordered:
            ordered.append(spec)

    for name in SPECS:
        if name in names:
            visit(SPECS[name])
    return ordered
