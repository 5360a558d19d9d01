"""What choosing is worth, and where it comes from: ``python -m benchmarks.attribution --images DIR``.

``toolboxes`` compares the agent of each toolbox with the best constant chain, a random policy, the greedy oracle and
the best chain of at most two tools. The other parts take one toolbox: ``kinds`` has a line for each kind of distortion
of the severity; ``order`` runs the chosen tools in another order; ``removed`` takes away each tool in turn;
``rewards`` measures the agent by SSIM and a perceptual distance; ``unseen`` measures on distortions that nothing was
trained on. The constant chain is found on photographs that nothing is measured on. With ``--cache`` an interrupted run
continues where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from agents.agent import RecurrentAgent, load_policy, policy_of
from agents.command_line import OneLineParser, positive_int, run_guarded
from benchmarks.attribution.choice import Explorer
from benchmarks.attribution.parts import PARTS, Setting, caption
from benchmarks.report.machine import environment
from benchmarks.report.publishing import add_outputs, check_outputs, parse, publish
from restore_env.distortions.protocol import MIXED, check_severity
from restore_env.images.sources import images_in
from restore_env.levels.building import split_images
from restore_env.resolve import resolve_toolbox
from tools_zoo import toolbox_names

PROGRAM = "benchmarks.attribution"


def split(images: Path, others: Path | None) -> tuple[list[str], list[str]]:
    """The photographs to measure on, and those to find constant chains on: a folder of others, or a fifth of them.

    Raises:
        ImageError: a folder that does not exist or holds no images.
        ValueError: too few photographs, or one that is in both folders.
    """
    sides = [sorted(str(path.resolve()) for path in images_in(folder)) for folder in (images, others) if folder]
    if others is None:
        return split_images(sides[0], "train"), split_images(sides[0], "test")
    common = sorted(set(sides[0]) & set(sides[1]))
    if common:
        raise ValueError(f"{common[0]}: in --images and in --choose-images: choose on other photographs")
    return sides[0], sides[1]


def load_agents(toolboxes: Iterable[str], toolbox: str, policy: str | None) -> dict[str, RecurrentAgent]:
    """The agent of each toolbox, its own; ``policy``, if given, for ``toolbox``.

    Raises:
        ValueError: a toolbox or an agent that cannot be loaded, or that do not belong together.
    """
    agents = {}
    for each in toolboxes:
        own = policy if policy and each == toolbox else policy_of(each)
        agents[each] = load_policy(own, tools=resolve_toolbox(each).names)
    return agents


def run(arguments: argparse.Namespace) -> int:
    """Measure the parts and publish them."""
    check_outputs(arguments)
    toolboxes = {name: name for name in arguments.toolboxes}
    toolboxes |= {"published": str(arguments.published)} if arguments.published else {}
    for severity in arguments.severity:  # errors come before the work begins
        check_severity(severity)
    agents = load_agents({*toolboxes.values(), arguments.toolbox}, arguments.toolbox, arguments.policy)
    measured, others = split(arguments.images, arguments.choose_images)
    text: list[str] = []
    record: dict[str, Any] = {}
    with nullcontext(arguments.cache) if arguments.cache else TemporaryDirectory() as folder:
        explorer = Explorer(
            images=measured,
            other_images=others,
            folder=Path(folder),
            patches=arguments.patches,
            other_patches=arguments.choose_patches,
            seed=arguments.seed,
        )
        for severity in dict.fromkeys(arguments.severity):
            setting = Setting(explorer, severity, toolboxes, arguments.toolbox, agents, arguments.seed)
            for part in dict.fromkeys(arguments.parts):
                section = PARTS[part](setting)
                record.setdefault(severity, {})[part] = section.record
                of = "" if part == "toolboxes" else f", toolbox {Path(arguments.toolbox).name}"
                text += ["", f"**{section.title}{of}, severity {severity}**", "", *section.text]
    facts = environment()
    times = f"Times are of {facts['threads']} thread(s) of {facts['processor'] or facts['system']}."
    words = [caption(explorer, len(measured), len(others)), *text, "", times]
    publish(arguments, "\n".join(words), {"severities": record, "environment": facts})
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="photographs to measure on")
    parser.add_argument(
        "--choose-images",
        type=Path,
        metavar="DIR",
        help="others, to find constant chains on (default: every fifth one of --images, which is then not measured)",
    )
    parser.add_argument("--severity", nargs="+", default=[MIXED], help=f"of the patches (default {MIXED})")
    parser.add_argument("--patches", type=positive_int, default=200, metavar="N", help="to measure (default 200)")
    parser.add_argument(
        "--choose-patches", type=positive_int, default=100, metavar="N", help="to find constant chains on (default 100)"
    )
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=["toolboxes"], help="default: toolboxes")
    parser.add_argument(
        "--toolboxes",
        nargs="+",
        default=toolbox_names(),
        metavar="NAME|DIR",
        help="of the part toolboxes (all shipped)",
    )
    parser.add_argument(
        "--published", type=Path, metavar="DIR", help="one more: what imagerestore import-rl-restore wrote"
    )
    parser.add_argument("--toolbox", default="default", metavar="NAME|DIR", help="of the other parts (default default)")
    parser.add_argument("--policy", metavar="NAME|FILE", help="agent of --toolbox (default: its own)")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep what is computed of the patches here")
    parser.add_argument("--seed", type=int, default=0)
    add_outputs(parser)
    parsed = parse(parser, arguments)
    return run_guarded(lambda: run(parsed), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
