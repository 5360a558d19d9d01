"""The short version of every benchmark, as data: one row each."""

from __future__ import annotations

from dataclasses import dataclass

PLACES = ("images", "few", "other", "files")
"""What arguments may name in braces: the folder of photographs that are restored; one with a few of them, for what
restores them whole; one of others, to search and train on; that of the JSON files, where rows before have theirs."""


@dataclass(frozen=True)
class Row:
    """One benchmark's short version."""

    name: str
    """Of its JSON file and its section of the page."""
    title: str
    """Of the section."""
    module: str
    """Below ``benchmarks``; it takes ``--json`` (:mod:`benchmarks.publishing`)."""
    arguments: str = ""
    """Separated by spaces."""
    long: str = ""
    """Where the long version's tables are."""


ROWS = (
    Row("tools", "Each tool on its own distortion", "tools", "--images {images} --patches 24"),
    Row(
        "agents",
        "The agent, fixed chains and the oracle",
        "agents",
        "--images {images} --search-images {other} --patches 60 --search-patches 4 --beam 2 --finalists 1"
        " --oracles greedy",
        "agents/weights/README.md",
    ),
    Row(
        "comparison",
        "Toolchains against one network",
        "compare",
        "--images {images} --search-images {other} --severity mild moderate severe --patches 60 --search-patches 4"
        " --beam 2",
        "docs/comparison.md",
    ),
    Row(
        "paper", "Next to the papers", "beside_paper", "--comparison {files}/comparison.json", long="docs/comparison.md"
    ),
    Row(
        "outside",
        "Distortions outside the protocol",
        "compare",
        "--images {images} --severity motion poisson webp unseen camera saved --methods input default photo classic"
        " --patches 60",
        "docs/comparison.md",
    ),
    Row(
        "photographs",
        "Whole photographs",
        "compare",
        "--images {few} --photographs --methods input default classic",
        "docs/comparison.md",
    ),
    Row(
        "complexity",
        "What a patch costs",
        "complexity",
        "--images {images} --patches 32 --rounds 3",
        "docs/comparison.md",
    ),
    Row(
        "real",
        "Photographs without a target",
        "real_photos",
        "--images {few} --synthetic --side 192 --methods default classic",
        "docs/comparison.md",
    ),
    Row(
        "joint",
        "Before and after joint training",
        "joint",
        "--images {images} --before pure pure --after classic classic --patches 60 --pure-patches 8",
        "docs/ablations.md",
    ),
    Row("stop", "The stop action", "ablations", "stop --images {images} --patches 60", "docs/ablations.md"),
    Row("steps", "Length of the chain", "ablations", "steps --images {images} --patches 40", "docs/ablations.md"),
    Row(
        "six",
        "Six tools or twelve",
        "ablations",
        "tools --images {images} --train-images {other} --patches 40 --minutes 0.2",
        "docs/ablations.md",
    ),
    Row(
        "memory",
        "Memory and the previous action",
        "ablations",
        "memory --images {images} --train-images {other} --patches 40 --minutes 0.2",
        "docs/ablations.md",
    ),
    Row(
        "algorithms",
        "RecurrentPPO and DRQN",
        "ablations",
        "algorithms --images {images} --train-images {other} --patches 40 --minutes 0.2 --seeds 1",
        "docs/ablations.md",
    ),
    Row(
        "super-resolution",
        "Super-resolvers",
        "super_resolution",
        "--images {few} --rounds 0",
        "docs/super-resolution.md",
    ),
    Row(
        "x4",
        "Toolchains and super-resolvers, x4",
        "compare",
        "--images {images} --task x4 --patches 16",
        "docs/super-resolution.md",
    ),
    Row("semantics", "What the prior does", "semantics", "--images {few}", "docs/super-resolution.md"),
    Row(
        "sr-chains",
        "Tools before super-resolution",
        "sr_chains",
        "--images {few} --search-images {other} --search-patches 2 --beam 1",
        "docs/super-resolution.md",
    ),
    Row(
        "sr-rewards",
        "Which super-resolver an agent prefers",
        "sr_rewards",
        "--images {images} --train-images {other} --rewards psnr perceptual --patches 8 --minutes 0.2",
        "docs/super-resolution.md",
    ),
    Row("throughput", "Steps per second", "throughput", "--images {images} --envs 8 64 --seconds 3", "docs/speed.md"),
    Row("backends", "What runs the tools", "backends", "--megapixels 0.5 --rounds 2", "docs/speed.md"),
    Row("learning", "Where RecurrentPPO's time goes", "learning_speed", "--rounds 1", "docs/speed.md"),
    Row(
        "scaling",
        "How cost grows",
        "scaling",
        "--images {images} --envs 1 16 64 --megapixels 0.25 0.5 1 --rounds 1 --seconds 5",
        "docs/speed.md",
    ),
    Row("photo", "A whole photo", "photo_speed", "--megapixels 0.25 --rounds 1", "docs/speed.md"),
)
"""All rows, in the order of the page; a row may read what one before it wrote."""
