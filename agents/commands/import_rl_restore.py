"""``imagerestore import-rl-restore``: the published RL-Restore checkpoints as a toolbox and an agent."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def register(commands: Any) -> None:
    """Add ``import-rl-restore``."""
    parser = commands.add_parser(
        "import-rl-restore",
        help="import the published RL-Restore tools and agent",
        description="Reads the authors' TensorFlow checkpoints (TensorFlow is not needed) and checks them in full.",
    )
    parser.add_argument("src", type=Path, metavar="SRC", help="folder that holds toolbox/ and models/")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write the toolbox and the agent to")
    parser.set_defaults(run=import_rl_restore)


def import_rl_restore(arguments: argparse.Namespace) -> int:
    """Run ``imagerestore import-rl-restore``; the agent's file gets its :class:`PolicyInput`, too."""
    from dataclasses import asdict

    from agents.agent import load_policy, save_policy
    from agents.policy_input import PUBLISHED
    from tools_zoo.catalog import TOOLS
    from tools_zoo.published.checkpoints import AGENT
    from tools_zoo.published.checkpoints import import_rl_restore as import_checkpoints

    folder = import_checkpoints(arguments.src, arguments.out)
    agent = load_policy(folder / AGENT)
    agent.recipe |= asdict(PUBLISHED)
    save_policy(agent, folder / AGENT)
    print(f"Toolbox of {len(TOOLS)} tools and {AGENT} written to {folder}")
    return 0
