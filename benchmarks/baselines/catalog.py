"""The baselines as data: name, task, architecture and source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

from benchmarks.baselines.complexity import macs_per_pixel, parameter_count
from benchmarks.baselines.owan import Owan
from benchmarks.baselines.same_size import BaselineNetwork, Cascade, PlainResidual
from benchmarks.baselines.x4_networks import Drrn, LapSrn, MemNet, OnBicubic, enhancenet, srcnn, srresnet

CLEAN = "clean"
"""The severity without distortions, only downscaled: the usual task of super-resolvers."""


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
        """The distortions that it is trained on by default."""
        return "moderate" if self.factor == 1 else CLEAN

    @property
    def patch_size(self) -> int:
        """Pixels of the input patches that it is trained on by default."""
        return 48 if self.factor == 1 else 24


def _plain(layers: int, channels: int, *, normalised: bool = False) -> Callable[[int], BaselineNetwork]:
    return lambda colours: PlainResidual(layers, channels, normalised=normalised, colours=colours)


def _cascade(network: str) -> Callable[[int], BaselineNetwork]:
    return lambda colours: Cascade(network)


def _on_bicubic(build: Callable[[int], BaselineNetwork]) -> Callable[[int], BaselineNetwork]:
    def built(colours: int) -> BaselineNetwork:
        network = build(colours)
        assert network.receptive_radius is not None
        return OnBicubic(network, network.receptive_radius)

    return built


_ROWS = (
    Baseline("vdsr", "VDSR", 1, _plain(20, 64), "Kim, Lee, Lee, CVPR 2016"),
    Baseline("vdsr_s", "VDSR-s", 1, _plain(15, 42), "Yu et al., CVPR 2018"),
    Baseline("dncnn", "DnCNN", 1, _plain(20, 64, normalised=True), "Zhang et al., TIP 2017"),
    Baseline("dncnn_s", "DnCNN-s", 1, _plain(15, 42, normalised=True), "DnCNN at the size of VDSR-s"),
    Baseline(
        "cascade", "fixed cascade", 1, _cascade("eight_layer"), "the published tools' larger network, three times"
    ),
    Baseline(
        "cascade_hourglass",
        "fixed cascade, hourglass",
        1,
        _cascade("hourglass_48"),
        "the default tools' larger network, three times",
    ),
    Baseline("owan", "OWAN", 1, lambda colours: Owan(), "Suganuma, Liu, Okatani, CVPR 2019"),
    Baseline("srcnn", "SRCNN", 4, srcnn, "Dong et al., TPAMI 2016, 9-5-5"),
    Baseline("vdsr_x4", "VDSR x4", 4, _on_bicubic(_plain(20, 64)), "Kim, Lee, Lee, CVPR 2016"),
    Baseline("lapsrn", "LapSRN", 4, LapSrn, "Lai et al., CVPR 2017"),
    Baseline("drrn", "DRRN", 4, _on_bicubic(Drrn), "Tai, Yang, Liu, CVPR 2017"),
    Baseline("memnet", "MemNet", 4, _on_bicubic(MemNet), "Tai et al., ICCV 2017"),
    Baseline("srresnet", "SRResNet", 4, srresnet, "Ledig et al., CVPR 2017; SRGAN's generator"),
    Baseline("enhancenet", "EnhanceNet", 4, enhancenet, "Sajjadi, Schoelkopf, Hirsch, ICCV 2017"),
)

BASELINES: Mapping[str, Baseline] = MappingProxyType({row.name: row for row in _ROWS})
"""The table, by name."""


def find_baseline(name: str) -> Baseline:
    """The row of that name; raise ``ValueError`` that lists the names."""
    if name not in BASELINES:
        raise ValueError(f"unknown baseline {name!r}: choose from {', '.join(BASELINES)}")
    return BASELINES[name]
