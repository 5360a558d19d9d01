"""Which super-resolver an agent learns to prefer under which reward: ``python -m benchmarks.sr_rewards --images DIR``.

For every reward an agent learns, from an oracle that tries all tools, to choose one tool for a photograph's clean x4
smaller patch; then it plays patches of ``--images``. PSNR pays the faithful super-resolver, the perceptual reward the
one whose texture looks right.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents.agent import RecurrentAgent
from agents.cli import OneLineParser, run_guarded
from agents.commands.arguments import positive_float, positive_int
from agents.imitation.imitation import learn_from_oracle
from agents.policies.heuristics import FixedChain
from agents.rollout import draw_starts, play
from benchmarks.publishing import add_outputs, check_outputs, parse, publish
from restore_env import Task
from restore_env.policy import Policy
from sr_models import with_super_resolvers
from tools_zoo import load_toolbox

PROGRAM, SECTION = "benchmarks.sr_rewards", "sr-rewards"
REWARDS = ("psnr", "ssim", "perceptual")


@dataclass(frozen=True)
class Preference:
    """What a policy chose on the held-out patches, and what each reward says of it."""

    name: str
    shares: dict[str, float]
    """Of the patches, by the tool that was chosen."""
    gains: dict[str, float]
    """Mean gain over bicubic enlargement, by reward."""


def clean_task(images: Any, **arguments: Any) -> Task:
    """One tool for a clean patch that is x4 smaller than its target."""
    import albumentations

    nothing = albumentations.Compose([albumentations.NoOp()])
    return Task(images=images, distortion=nothing, upscale=(4,), max_steps=1, **arguments)


def prefer(name: str, policy: Policy, task: Task, patches: int, seed: int) -> Preference:
    """Play the held-out patches and count."""
    starts = draw_starts(task, patches, seed)
    played = {reward: play(policy, replace(task, reward=reward), starts) for reward in REWARDS}
    chosen = [actions[0] for actions in played[REWARDS[0]].actions]
    names = (*task.made_toolbox.names, "stop")
    shares = {names[action]: float(np.mean([each == action for each in chosen])) for action in set(chosen)}
    ordered = dict(sorted(shares.items(), key=lambda item: -item[1]))
    return Preference(name, ordered, {reward: each.value for reward, each in played.items()})


def table(preferences: Sequence[Preference]) -> list[str]:
    """The preferences as lines of Markdown."""
    lines = ["| policy | chooses | PSNR gain, dB | SSIM gain | perceptual gain |", "|---|---|---:|---:|---:|"]
    for each in preferences:
        chooses = ", ".join(f"{name} {share:.0%}" for name, share in each.shares.items() if share >= 0.005)
        psnr, ssim, perceptual = (each.gains[reward] for reward in REWARDS)
        lines.append(f"| {each.name} | {chooses} | {psnr:+.2f} | {ssim:+.4f} | {perceptual:+.4f} |")
    return lines


def run(arguments: argparse.Namespace) -> int:
    """Teach an agent for every reward, let all play, print."""
    check_outputs(arguments, SECTION)
    toolbox = with_super_resolvers(load_toolbox(arguments.toolbox, arguments.device))
    held_out = clean_task(arguments.images, toolbox=toolbox)
    preferences = []
    for action in np.flatnonzero(toolbox.scales > 1).tolist():
        name = toolbox.names[action]
        fixed = FixedChain((action,), toolbox.stop)
        preferences.append(prefer(f"always {name}", fixed, held_out, arguments.patches, arguments.seed))
    for reward in arguments.rewards:
        print(f"{PROGRAM}: learning from {reward}", file=sys.stderr, flush=True)
        torch.manual_seed(arguments.seed)
        agent = RecurrentAgent(toolbox.names, encoder="pooled")
        task = clean_task(arguments.train_images, toolbox=toolbox, reward=reward)
        seconds = arguments.minutes * 60
        learn_from_oracle(agent, task, seconds, arguments.seed, plays=False, precision=arguments.precision)
        name = f"agent paid in {reward}"
        preferences.append(prefer(name, agent, held_out, arguments.patches, arguments.seed))
    text = "\n".join(table(preferences))
    publish(arguments, SECTION, text, {"preferences": [asdict(each) for each in preferences]})
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--images", type=Path, required=True, help="folder of held-out photographs")
    parser.add_argument("--train-images", type=Path, help="photographs to learn on (default: the embedded ones)")
    parser.add_argument("--toolbox", default="default", help="shipped name or folder")
    parser.add_argument("--patches", type=positive_int, default=100, help="held-out patches (default 100)")
    parser.add_argument(
        "--rewards", nargs="+", choices=REWARDS, default=REWARDS, help="that agents learn from (default all)"
    )
    parser.add_argument("--minutes", type=positive_float, default=4.0, help="of learning for each reward (default 4)")
    parser.add_argument(
        "--precision", choices=("fp32", "bf16"), default="fp32", help="bf16 is faster only where the hardware has it"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    add_outputs(parser)
    parsed = parse(parser, arguments)
    return run_guarded(lambda: run(parsed), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
