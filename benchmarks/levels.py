"""Reference scores of level sets: ``python -m benchmarks.levels [SETS...]``.

``pure`` stands for the level sets ``pure-train`` and ``pure-test``, and a path for two sets likewise. Policies are
chosen and trained on the first and judged on the second, which comes from other photographs, all on the same levels.
The score is 0 for the constant chain that is best on the test set, and 1 for the best chain of each level.
"""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from agents.command_line import OneLineParser, positive_int, run_guarded
from agents.evaluation import evaluate
from agents.intervals import Estimate
from agents.policies.heuristics import FixedChain, RandomPolicy
from agents.policies.oracles import ExhaustiveOracle, GreedyOracle
from agents.rollout import draw_starts
from benchmarks.report.machine import environment
from benchmarks.report.publishing import add_outputs, check_outputs, markdown_table, parse, publish
from restore_env import Task
from restore_env.episodes.batch import EpisodeBatch
from restore_env.levels.optima import optima
from restore_env.levels.store import LevelSet, open_levels
from restore_env.policy import Policy

PROGRAM = "benchmarks.levels"
COMPACT: dict[str, Any] = {"observation": "spectrum", "flatten": True}
BLIND: dict[str, Any] = {"observation": ("last_action", "steps_left"), "flatten": True}
"""Observations of policies that see the image, and of the one that does not."""
PPO_SETTINGS: dict[str, Any] = {
    "n_steps": 16,
    "batch_size": 512,
    "n_epochs": 4,
    "gamma": 1.0,
    "learning_rate": 1e-3,
    "ent_coef": 0.01,
}
ENVS = 64
WIDTH, DROPOUT, EPOCHS, BATCH = 256, 0.3, 40, 256
"""Of the multilayer perceptron that imitates."""
WORST = -1.0
"""How far below the best action, in the reward's unit, an action can be in training: all worse ones are equally bad."""


@dataclass(frozen=True)
class Setting:
    """A pair of level sets, and how much is trained."""

    train: str
    test: str
    steps: int
    """Environment steps of each training by PPO."""
    seed: int

    @property
    def training_set(self) -> LevelSet:
        """The level set to train on."""
        return open_levels(self.train)

    @property
    def depth(self) -> int:
        """Steps of an episode."""
        return self.training_set.manifest.depth


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    policy: str
    mean: Estimate
    """Return."""
    score: Estimate
    train_score: float
    """On the training set."""
    worse: float
    """Share of episodes that the policy made worse."""
    steps: float
    gmacs: float
    seconds: float
    """Wall time of choosing or training the policy, and of its evaluation."""


class RewardPredictor(nn.Module):
    """Predicts from the compact observation how far each action's reward is below the best one, and takes the highest.

    Args:
        inputs: observations ``(N, D)``, by which it standardizes.
        n_actions: tools and ``stop``.
    """

    def __init__(self, inputs: torch.Tensor, n_actions: int) -> None:
        super().__init__()
        self.mean, self.deviation = inputs.mean(0), inputs.std(0) + 1e-3
        parts: list[nn.Module] = []
        for before, after in pairwise((inputs.shape[1], WIDTH, WIDTH)):
            parts += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(DROPOUT)]
        self.layers = nn.Sequential(*parts, nn.Linear(WIDTH, n_actions))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Rewards minus the best one, ``(N, n_actions)``."""
        predicted: torch.Tensor = self.layers((inputs - self.mean) / self.deviation)
        return predicted

    @torch.inference_mode()
    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[npt.NDArray[np.int64], None]:
        """Choose an action for each observation, ``(N, D)``."""
        return self(torch.from_numpy(observation)).argmax(dim=1).numpy(), None


def imitate(setting: Setting) -> RewardPredictor:
    """Train a predictor on the rewards of all actions after every chain of the training set."""
    inputs, rewards = (torch.from_numpy(values).flatten(0, 1) for values in every_reward(setting))
    targets = (rewards - rewards.max(dim=1, keepdim=True).values).clamp_(min=WORST)
    torch.manual_seed(setting.seed)
    network = RewardPredictor(inputs, rewards.shape[1])
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.1)
    batches = -(-len(inputs) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=EPOCHS * batches)
    for _ in range(EPOCHS):
        order = torch.randperm(len(inputs))
        for first in range(0, len(inputs), BATCH):
            rows = order[first : first + BATCH]
            optimizer.zero_grad()
            F.mse_loss(network(inputs[rows]), targets[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return network.eval()


def every_reward(setting: Setting) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Observations ``(chains, levels, D)`` after every chain that can be extended, and each action's reward there."""
    task = Task(levels=setting.train, max_steps=setting.depth, **COMPACT)
    starts = draw_starts(task, None, 0)
    episodes, slots = EpisodeBatch(task, len(starts)), np.arange(len(starts))
    tree = setting.training_set.tree
    observations, rewards = [], []
    for chain in tree.chains[: tree.inner]:
        episodes.reset(slots, starts)
        for tool in chain:
            episodes.step(slots, np.full(len(slots), tool))
        observations.append(episodes.observations(slots))
        rewards.append(episodes.one_step_rewards(slots).astype(np.float32))
    return np.stack(observations), np.stack(rewards)


def train_ppo(setting: Setting, observed: dict[str, Any], share: float = 1.0) -> Any:
    """Train Stable-Baselines3's PPO with its multilayer perceptron from scratch, on standardized observations."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import VecNormalize

    from agents.sb3_env import RestoreVecEnv

    levels = RestoreVecEnv(ENVS, levels=setting.train, max_steps=setting.depth, **observed)
    env = VecNormalize(levels, norm_reward=False)
    return PPO("MlpPolicy", env, seed=setting.seed, device="cpu", **PPO_SETTINGS).learn(int(setting.steps * share))


def constant_chain(setting: Setting) -> FixedChain:
    """The chain with the highest mean return on the training set."""
    levels = setting.training_set
    return FixedChain(optima(levels, setting.depth).constant_chain, len(levels.manifest.tools))


POLICIES: dict[str, tuple[Callable[[Setting], Policy], dict[str, Any]]] = {
    "random": (lambda setting: RandomPolicy(setting.seed), COMPACT),
    "PPO without the image": (lambda setting: train_ppo(setting, BLIND, 0.1), BLIND),
    "best constant chain": (constant_chain, COMPACT),
    "PPO": (lambda setting: train_ppo(setting, COMPACT), COMPACT),
    "imitation": (imitate, COMPACT),
    "greedy oracle": (lambda _: GreedyOracle(), COMPACT),
    "optimum": (lambda setting: ExhaustiveOracle(setting.depth), COMPACT),
}
"""The policies of the table: how each is made, and what it observes. Without images a tenth of the steps is plenty."""


def measure(setting: Setting) -> list[Line]:
    """Make every policy and judge it on the test set."""
    lines = []
    for number, (name, (make, observed)) in enumerate(POLICIES.items(), 1):
        print(f"[{number}/{len(POLICIES)}] {setting.test}: {name}", file=sys.stderr, flush=True)
        began = time.perf_counter()
        policy = make(setting)
        seen, unseen = (
            evaluate(policy, levels=levels, max_steps=setting.depth, **observed)
            for levels in (setting.train, setting.test)
        )
        assert seen.score is not None
        assert unseen.score is not None
        given = (unseen.mean, unseen.score, seen.score.mean, unseen.worse, unseen.steps, unseen.gmacs)
        lines.append(Line(name, *given, time.perf_counter() - began))
    return lines


def table(lines: Sequence[Line], unit: str) -> list[str]:
    """The lines as Markdown; intervals of 95 % in brackets."""
    heads = ["policy", f"return{unit}", "score", "on train", "made worse", "steps", "GMAC", "seconds"]
    rows = [
        [
            *(line.policy, line.mean, line.score, f"{line.train_score:.3f}", f"{line.worse:.1%}"),
            *(f"{line.steps:.2f}", f"{line.gmacs:.4f}", f"{line.seconds:.0f}"),
        ]
        for line in lines
    ]
    return markdown_table(heads, rows)


def run(arguments: Namespace) -> int:
    """Measure all sets and publish their tables."""
    check_outputs(arguments)
    settings = [Setting(f"{name}-train", f"{name}-test", arguments.steps, arguments.seed) for name in arguments.sets]
    sets = [(open_levels(setting.train), open_levels(setting.test)) for setting in settings]  # before the work begins
    for name, (train, test) in zip(arguments.sets, sets, strict=True):
        if train.manifest.tools != test.manifest.tools or train.manifest.depth != test.manifest.depth:
            raise ValueError(f"{name}: the train set and the test set must have the same tools and the same depth")
    text, measured = [], {}
    for name, setting, (train, test) in zip(arguments.sets, settings, sets, strict=True):
        lines = measure(setting)
        manifest, (known, unseen) = test.manifest, [len(np.unique(part.arrays["photograph"])) for part in (train, test)]
        text += [
            f"**{name}**: {len(test)} levels of {unseen} photographs; trained on {len(train)} levels of {known} others."
            f" Severity {manifest.severity}, {len(manifest.tools)} tools, at most {setting.depth} steps.\n",
            *table(lines, ", dB" if manifest.reward == "psnr" else ""),
            "",
        ]
        measured[name] = [asdict(line) for line in lines]
    facts = environment()
    text.append(f"Means with 95 % intervals; PPO: {arguments.steps} steps; {facts['processor'] or facts['system']}.")
    publish(arguments, "\n".join(text), {"sets": measured, "environment": facts})
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("sets", nargs="*", default=["any", "pure"], metavar="SETS", help="default: any pure")
    parser.add_argument("--steps", type=positive_int, default=1_000_000, help="of each PPO (default 1,000,000)")
    parser.add_argument("--seed", type=int, default=0)
    add_outputs(parser)
    parsed = parse(parser, arguments)
    return run_guarded(lambda: run(parsed), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
