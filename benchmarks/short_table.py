"""The short version of every benchmark, as data: one row each."""

from __future__ import annotations

from dataclasses import dataclass

PLACES = ("images", "few", "other")
"""What arguments may name in braces: the folder of photographs that are restored; one with a few of them, for
benchmarks that restore them whole; one of others, to search and train on."""


@dataclass(frozen=True)
class Row:
    """One benchmark's short version."""

    name: str
    """Of its JSON file and its section of the page."""
    title: str
    """Of the section."""
    module: str
    """Package or module below ``benchmarks`` that is run; it takes ``--json`` (:mod:`benchmarks.report.publishing`)."""
    arguments: str = ""
    """Separated by spaces."""
    long: str = ""
    """Where the long version's tables are."""


ROWS = (
    Row("tools", "Each tool on its own distortion", "tools", "--images {images} --patches 24"),
    Row(
        "agents",
        "The agent, fixed chains and the oracle",
        "compare",
        "--images {images} --search-images {other} --patches 60 --search-patches 4 --beam 2 --reference input"
        " --methods input random fixed_1 fixed_2 default greedy",
        "docs/results.md",
    ),
    Row(
        "comparison",
        "Toolchains against one network",
        "compare",
        "--images {images} --search-images {other} --severity mild moderate severe --patches 60 --search-patches 4"
        " --beam 2",
        "docs/results.md",
    ),
    Row(
        "outside",
        "Distortions outside the protocol",
        "compare",
        "--images {images} --severity motion poisson webp unseen camera saved --methods input default photo classic"
        " --patches 60",
        "docs/results.md",
    ),
    Row(
        "photographs",
        "Whole photographs",
        "compare",
        "--images {few} --photographs --methods input default classic",
        "docs/results.md",
    ),
    Row("stop", "The stop action", "ablations", "stop --images {images} --patches 60", "docs/results.md"),
    Row("steps", "Length of the chain", "ablations", "steps --images {images} --patches 40", "docs/results.md"),
    Row(
        "six",
        "Six tools or twelve",
        "ablations",
        "tools --images {images} --train-images {other} --patches 40 --minutes 0.2",
        "docs/results.md",
    ),
    Row(
        "memory",
        "Memory and the previous action",
        "ablations",
        "memory --images {images} --train-images {other} --patches 40 --minutes 0.2",
        "docs/results.md",
    ),
    Row(
        "algorithms",
        "RecurrentPPO and DRQN",
        "ablations",
        "algorithms --images {images} --train-images {other} --patches 40 --minutes 0.2 --seeds 1",
        "docs/results.md",
    ),
    Row(
        "super-resolution",
        "Super-resolvers",
        "compare",
        "--images {few} --task x4 --photographs --methods bicubic sft_gan_psnr sft_gan sed_psnr sed",
        "docs/results.md",
    ),
    Row(
        "x4",
        "Toolchains and super-resolvers, x4",
        "compare",
        "--images {images} --task x4 --patches 16",
        "docs/results.md",
    ),
    Row("speed", "Steps per second", "speed", "--images {images} --envs 8 64 --seconds 3", "docs/results.md"),
)
"""All rows, in the order of the page."""
