"""The agent against constant chains and oracles, on held-out patches: ``python -m benchmarks.agents --images DIR``.

The fixed chains are the best that a search finds: the ``--finalists`` of each length by mean PSNR on patches of
``--search-images``, and of these, in their favour, the best on the held-out patches themselves. The single tool is the
best of all on the held-out patches. All get the same patches, ``--against`` other toolboxes with agents of their own
(``published=FOLDER``, what ``imagerestore import-rl-restore`` wrote) and ``--oracles``, which see the targets.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from agents.agent import policy_of
from agents.command_line import OneLineParser, positive_int, run_guarded
from agents.policies.heuristics import FixedChain, RandomPolicy
from agents.policies.oracles import ExhaustiveOracle, GreedyOracle
from agents.rollout import EpisodeResults, draw_starts, play
from benchmarks.agents.evaluation import (
    AGENT,
    GREEDY,
    EvaluatedPolicy,
    difference,
    differences_table,
    parse_policy,
    scores_of,
    scores_table,
    search_chains,
)
from benchmarks.report.publishing import add_outputs, check_outputs, parse, publish
from restore_env import Task
from restore_env.policy import Policy
from restore_env.sampling import EpisodeStart
from restore_env.toolbox import Toolbox

PROGRAM = "benchmarks.agents"


def best_of(
    name: str, chains: Sequence[tuple[int, ...]], toolbox: Toolbox, task: Task, starts: Sequence[EpisodeStart]
) -> tuple[str, EpisodeResults]:
    """Run fixed chains and return the best one's name and results."""
    policies = [FixedChain(chain, toolbox.stop) for chain in chains]
    results = [play(policy, task, starts) for policy in policies]
    best = max(range(len(chains)), key=lambda index: results[index].gain)
    return f"{name} ({policies[best].named(toolbox)})", results[best]


def run(arguments: argparse.Namespace) -> int:
    """Search chains, run all policies, publish the tables."""
    check_outputs(arguments, arguments.section)
    agent = EvaluatedPolicy.load(AGENT, arguments.toolbox, arguments.policy)
    baselines = [parse_policy(text) for text in arguments.against]
    toolbox = agent.toolbox
    oracles: dict[str, Policy] = {
        "greedy": GreedyOracle(),
        "exhaustive": ExhaustiveOracle(precision=arguments.oracle_precision),
    }
    evaluated_policies = [agent, *baselines]
    for owner in (agent, *baselines):
        suffix = owner.oracle.removeprefix(GREEDY)
        evaluated_policies += [
            EvaluatedPolicy(f"{name} oracle{suffix}", oracles[name], owner.toolbox, owner.oracle)
            for name in arguments.oracles
        ]
    oracle_names = {evaluated.name: evaluated.oracle for evaluated in evaluated_policies}
    names = [evaluated.name for evaluated in evaluated_policies]
    if len(set(names)) < len(names):
        raise ValueError(f"--against needs names that differ from one another and from the others: {', '.join(names)}")
    tasks = {name: Task(images=arguments.images, severity=name, toolbox=toolbox) for name in arguments.severity}
    test_sets = {name: draw_starts(task, arguments.patches, arguments.seed) for name, task in tasks.items()}
    search = Task(images=arguments.search_images, toolbox=toolbox)
    chains = search_chains(toolbox, search, arguments.search_patches, arguments.beam, seed=arguments.seed + 1)
    played: dict[str, dict[str, EpisodeResults]] = {}
    lines: list[str] = []
    for severity, task in tasks.items():
        starts = test_sets[severity]
        results = {"random": play(RandomPolicy(arguments.seed), task, starts)}
        played[severity] = results
        name, result = best_of("best single tool", [(a,) for a in range(len(toolbox))], toolbox, task, starts)
        results[name] = result
        for length in range(2, task.max_steps + 1):
            finalists = chains[length][: arguments.finalists]
            name, result = best_of(f"best fixed chain of {length}", finalists, toolbox, task, starts)
            results[name] = result
        for evaluated in evaluated_policies:
            results[evaluated.name] = evaluated.play(task, starts)
        initial = float(results[AGENT].initial_psnr.mean())
        lines += [f"**{severity}**, {arguments.patches} patches, input {initial:.2f} dB", ""]
        lines += [*scores_table(scores_of(results, oracle_names)), ""]
    differences = [difference(baseline.name, played) for baseline in baselines]
    if differences:
        lines += [*differences_table(differences), ""]
    record = {
        "severities": {
            severity: [asdict(row) for row in scores_of(results, oracle_names)] for severity, results in played.items()
        },
        "differences": [asdict(row) for row in differences],
    }
    publish(arguments, arguments.section, "\n".join(lines).rstrip(), record)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--images", type=Path, required=True, help="folder of held-out photographs")
    parser.add_argument("--search-images", type=Path, help="photographs to search chains on (default: embedded ones)")
    parser.add_argument("--toolbox", default="default", help="shipped name or folder")
    parser.add_argument("--policy", help="shipped name or file (default: the toolbox's own)")
    parser.add_argument("--severity", nargs="+", choices=("mild", "moderate", "severe"), default=["moderate"])
    parser.add_argument("--patches", type=positive_int, default=500)
    parser.add_argument("--search-patches", type=positive_int, default=64)
    parser.add_argument("--beam", type=positive_int, default=36, help="chains prolonged per length; 144 searches all")
    parser.add_argument("--finalists", type=positive_int, default=5, help="chains of each length that are run")
    parser.add_argument(
        "--against", nargs="+", default=[], metavar="NAME=FOLDER", help="other toolboxes with their agent.safetensors"
    )
    parser.add_argument(
        "--oracles",
        nargs="+",
        default=[],
        choices=("greedy", "exhaustive"),
        help="policies that see the targets: greedy takes six times as long as the agent, exhaustive a hundred times",
    )
    parser.add_argument(
        "--oracle-precision",
        choices=("fp32", "bf16"),
        default="fp32",
        help="in which the exhaustive oracle tries tools: bf16 is faster only where the hardware has it",
    )
    parser.add_argument("--seed", type=int, default=0)
    add_outputs(parser)
    parser.add_argument("--section", default="agents", help="of the card (default: agents)")
    parsed = parse(parser, arguments)
    parsed.policy = parsed.policy or str(policy_of(parsed.toolbox))
    return run_guarded(lambda: run(parsed), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
