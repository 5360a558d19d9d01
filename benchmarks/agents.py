"""The agent against what needs no agent, on held-out patches: ``python -m benchmarks.agents --images DIR``.

The fixed chains are the best that a search finds: the ``--finalists`` of each length by mean PSNR on patches of
``--search-images``, and of these, in their favour, the best on the held-out patches themselves. The single tool is the
best of all on the held-out patches. All play the same patches.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from agents.baselines import FixedChain, RandomPolicy, best_chains
from agents.cli import OneLineParser, run_guarded
from agents.commands.arguments import positive_int
from agents.network import load_policy
from agents.rollout import Played, Policy, draw_starts, play
from restore_env import Task
from restore_env.toolbox import Toolbox
from restore_env.writing import write_atomically
from tools_zoo import load_toolbox
from tools_zoo.cards import check_section, command_line, replace_section
from tools_zoo.fitting import as_tensor

PROGRAM, SECTION = "benchmarks.agents", "agents"


def search_chains(toolbox: Toolbox, task: Task, count: int, beam: int, seed: int) -> dict[int, list[tuple[int, ...]]]:
    """The best fixed chains of each length up to ``task.max_steps`` on ``count`` patches."""
    starts = draw_starts(task, count, seed)
    images, targets = (
        as_tensor(np.stack([getattr(start, side) for start in starts])).contiguous() for side in ("degraded", "target")
    )
    with torch.inference_mode():
        return best_chains(toolbox, images, targets, depth=task.max_steps, beam=beam)


def row(name: str, played: Played) -> dict[str, object]:
    """One line of the table."""
    lengths = np.array([len(actions) for actions in played.actions])
    gain = played.psnr - played.initial_psnr
    return {
        "policy": name,
        "psnr": float(played.psnr.mean()),
        "gain": played.gain,
        "interval": float(1.96 * gain.std() / np.sqrt(len(gain))),
        "gmacs": float(played.gmacs.mean()),
        "steps": float(lengths.mean()),
    }


def run(arguments: argparse.Namespace) -> int:
    """Search, play, print."""
    if arguments.card is not None:
        check_section(arguments.card, SECTION)
    toolbox = load_toolbox(arguments.toolbox)
    lines: list[str] = []
    results: dict[str, list[dict[str, object]]] = {}
    tasks = {name: Task(images=arguments.images, severity=name, toolbox=toolbox) for name in arguments.severity}
    test_sets = {name: draw_starts(task, arguments.patches, arguments.seed) for name, task in tasks.items()}
    search = Task(images=arguments.search_images, toolbox=toolbox)
    chains = search_chains(toolbox, search, arguments.search_patches, arguments.beam, seed=arguments.seed + 1)
    for severity, task in tasks.items():
        starts = test_sets[severity]
        singles = [(play(FixedChain((a,), toolbox.stop), task, starts), a) for a in range(len(toolbox))]
        single, tool = max(singles, key=lambda entry: entry[0].gain)
        contenders: list[tuple[str, Policy]] = [("random", RandomPolicy(arguments.seed))]
        played = [row(name, play(policy, task, starts)) for name, policy in contenders]
        played.append(row(f"best single tool ({toolbox.name(tool)})", single))
        for length in range(2, task.max_steps + 1):
            finalists = chains[length][: arguments.finalists]
            trials = [(play(FixedChain(chain, toolbox.stop), task, starts), chain) for chain in finalists]
            best, chain = max(trials, key=lambda entry: entry[0].gain)
            name = " -> ".join(toolbox.name(action) for action in chain)
            played.append(row(f"best fixed chain of {length} ({name})", best))
        played.append(row("agent", play(load_policy(arguments.policy), task, starts)))
        results[severity] = played
        initial = float(single.initial_psnr.mean())
        lines += [
            f"**{severity}**, {arguments.patches} patches, input {initial:.2f} dB",
            "",
            "| policy | PSNR, dB | gain, dB (95 %) | steps | GMAC a patch |",
            "|---|---:|---:|---:|---:|",
        ]
        lines += [
            f"| {r['policy']} | {r['psnr']:.2f} | {r['gain']:+.2f} ± {r['interval']:.2f} |"
            f" {r['steps']:.2f} | {r['gmacs']:.2f} |"
            for r in played
        ]
        lines.append("")
    text = "\n".join(lines)
    print(text)
    if arguments.json:
        write_atomically(arguments.json, json.dumps(results, indent=2).encode())
    if arguments.card:
        replace_section(arguments.card, SECTION, f"{text}\n```\n{arguments.command_line}\n```")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--images", type=Path, required=True, help="folder of held-out photographs")
    parser.add_argument("--search-images", type=Path, help="photographs to search chains on (default: embedded ones)")
    parser.add_argument("--toolbox", default="default", help="shipped name or folder")
    parser.add_argument("--policy", default="default", help="shipped name or file")
    parser.add_argument("--severity", nargs="+", choices=("mild", "moderate", "severe"), default=["moderate"])
    parser.add_argument("--patches", type=positive_int, default=500)
    parser.add_argument("--search-patches", type=positive_int, default=64)
    parser.add_argument("--beam", type=positive_int, default=36, help="chains prolonged per length; 144 searches all")
    parser.add_argument("--finalists", type=positive_int, default=5, help="chains of each length that are played")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the numbers here, too")
    parser.add_argument("--card", type=Path, help="Markdown file whose section the table replaces")
    parsed = parser.parse_args(arguments)
    parsed.command_line = command_line(f"python -m {PROGRAM}", sys.argv[1:] if arguments is None else arguments)
    return run_guarded(lambda: run(parsed), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
