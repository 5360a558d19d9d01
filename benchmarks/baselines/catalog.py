"""The baselines as data: architecture, source, computation, and published computation.

Published figures count the weights of convolutions, some with those of normalisation or biases besides: they agree with
what is counted here to 1 %, where the row's ``remark`` does not say why not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

from benchmarks.baselines.complexity import macs_per_pixel, parameter_count
from benchmarks.baselines.owan import Owan
from benchmarks.baselines.same_size import BaselineNetwork, Cascade, PlainResidual
from benchmarks.baselines.x4_networks import Drrn, EnhanceNet, LapSrn, MemNet, SrResNet, on_bicubic, srcnn, vdsr_x4

CLEAN = "clean"
"""The severity without distortions, only downscaled: the usual task of super-resolvers."""
PATCH_PIXELS = 63 * 63
"""Pixels of the protocol's patch, by which RL-Restore reports computation."""
SMALL_720P = 320 * 180
"""Input pixels of a x4 result of 1280x720, by which super-resolvers' computation is reported."""


@dataclass(frozen=True)
class Published:
    """Published size of a network."""

    parameters: float
    gmacs: float | None
    """10^9 multiply-accumulates for ``pixels``."""
    pixels: int
    colours: int
    """Of the network that the figures are of: 1, luminance, or 3."""
    source: str


@dataclass(frozen=True)
class Baseline:
    """One row of the table."""

    name: str
    """On the command line and in files."""
    title: str
    """In tables."""
    factor: int
    """The task: 1 same size, 4 low resolution."""
    build: Callable[[int], BaselineNetwork]
    """Makes the network for so many colours, with its start weights."""
    source: str
    published: Published | None = None
    remark: str = ""

    def network(self) -> BaselineNetwork:
        """The network for colour images, with its start weights."""
        return self.build(3)

    @cached_property
    def parameters(self) -> int:
        """Of the colour network, normalisation and biases included."""
        return parameter_count(self.network())

    @cached_property
    def macs_per_pixel(self) -> float:
        """Multiply-accumulates per input pixel of the colour network."""
        return macs_per_pixel(self.network())

    @property
    def severity(self) -> str:
        """The distortions that it is trained on unless others are asked for."""
        return "moderate" if self.factor == 1 else CLEAN


def _plain(layers: int, channels: int, *, normalised: bool = False) -> Callable[[int], BaselineNetwork]:
    return lambda colours: PlainResidual(layers, channels, normalised=normalised, colours=colours)


_YU = "Yu et al., CVPR 2018, table 3"
_AHN = "Ahn, Kang, Sohn, ECCV 2018, table 1"

_ROWS = (
    Baseline(
        "vdsr",
        "VDSR",
        1,
        _plain(20, 64),
        "Kim, Lee, Lee, CVPR 2016",
        Published(667e3, 2.65, PATCH_PIXELS, 3, _YU),
    ),
    Baseline(
        "vdsr_s", "VDSR-s", 1, _plain(15, 42), "Yu et al., CVPR 2018", Published(209e3, 0.83, PATCH_PIXELS, 3, _YU)
    ),
    Baseline(
        "dncnn",
        "DnCNN",
        1,
        _plain(20, 64, normalised=True),
        "Zhang et al., TIP 2017",
        Published(669e3, 2.66, PATCH_PIXELS, 3, _YU),
    ),
    Baseline("dncnn_s", "DnCNN-s", 1, _plain(15, 42, normalised=True), "DnCNN at the size of VDSR-s"),
    Baseline(
        "cascade",
        "fixed cascade",
        1,
        lambda colours: Cascade("eight_layer"),
        "three networks of the published tools' larger shape",
    ),
    Baseline(
        "cascade_hourglass",
        "fixed cascade, hourglass",
        1,
        lambda colours: Cascade("hourglass_48"),
        "three networks of the default tools' larger shape",
    ),
    Baseline(
        "owan",
        "OWAN",
        1,
        lambda colours: Owan(),
        "Suganuma, Liu, Okatani, CVPR 2019",
        Published(391_456, None, PATCH_PIXELS, 3, "the published weights"),
    ),
    Baseline("srcnn", "SRCNN", 4, srcnn, "Dong et al., TPAMI 2016, 9-5-5", Published(57e3, 52.7, SMALL_720P, 1, _AHN)),
    Baseline(
        "vdsr_x4", "VDSR x4", 4, vdsr_x4, "Kim, Lee, Lee, CVPR 2016", Published(665e3, 612.6, SMALL_720P, 1, _AHN)
    ),
    Baseline(
        "lapsrn",
        "LapSRN",
        4,
        LapSrn,
        "Lai et al., CVPR 2017",
        Published(813e3, 149.4, SMALL_720P, 1, _AHN),
        remark="the published figures count the 4x4 transposed convolutions as 3x3 ones at their output's size",
    ),
    Baseline(
        "drrn", "DRRN", 4, on_bicubic(Drrn), "Tai, Yang, Liu, CVPR 2017", Published(297e3, 6796.9, SMALL_720P, 1, _AHN)
    ),
    Baseline(
        "memnet",
        "MemNet",
        4,
        on_bicubic(MemNet),
        "Tai et al., ICCV 2017",
        Published(677e3, 2662.4, SMALL_720P, 1, _AHN),
    ),
    Baseline(
        "srresnet",
        "SRResNet",
        4,
        SrResNet,
        "Ledig et al., CVPR 2017; SRGAN's generator",
        Published(1543e3, 127.8, SMALL_720P, 3, _AHN),
    ),
    Baseline("enhancenet", "EnhanceNet", 4, EnhanceNet, "Sajjadi, Schoelkopf, Hirsch, ICCV 2017"),
)

BASELINES: Mapping[str, Baseline] = MappingProxyType({row.name: row for row in _ROWS})
"""The table, by name."""


def find_baseline(name: str) -> Baseline:
    """The row of that name; raise ``ValueError`` that lists the names."""
    if name not in BASELINES:
        raise ValueError(f"unknown baseline {name!r}: choose from {', '.join(BASELINES)}")
    return BASELINES[name]
