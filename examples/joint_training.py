"""Train an agent and then tools and agent jointly, starting from the shipped tools of RL-Restore's shapes.

Run from the checkout: ``python -m examples.joint_training --images photos/ --minutes 10``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from agents.cli import main as imagerestore


def main(arguments: list[str] | None = None) -> Path:
    """Run the two trainings; return the folder of the trained toolbox."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", help="folder of photographs (default: those of scikit-image)")
    parser.add_argument("--toolbox", default="pure")
    parser.add_argument("--minutes", type=float, default=10, help="for joint training; the agent has half as many")
    parser.add_argument("--steps", type=int, help="of each training, in place of minutes")
    parser.add_argument("--envs", type=int, default=64, help="environments of the agent's training")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("runs/joint_training"))
    options = parser.parse_args(arguments)

    common = ["--toolbox", options.toolbox, *(["--images", options.images] if options.images else [])]
    agent, tools = options.out / "agent", options.out / "tools"

    def budget(minutes: float) -> list[str]:
        return ["--minutes", str(minutes)] if options.steps is None else ["--steps", str(options.steps)]

    warm = [] if options.steps else ["--warm-start", str(options.minutes / 2)]
    learning = [*warm, *budget(0.1 if warm else 0), "--envs", str(options.envs)]
    run("train", "agent", *common, *learning, "--out", str(agent))
    policy = ["--policy", str(agent / "agent.safetensors"), "--batch-size", str(options.batch_size)]
    run("train", "joint", *common, *policy, *budget(options.minutes), "--out", str(tools))
    print(f"restore with: imagerestore restore photo.jpg --toolbox {tools} --policy {agent / 'agent.safetensors'}")
    return Path(tools)


def run(*arguments: str) -> None:
    """Run one command of the command line; stop where it fails."""
    print("imagerestore", *arguments)
    code = imagerestore(arguments)
    if code:
        raise SystemExit(code)


if __name__ == "__main__":
    main()
