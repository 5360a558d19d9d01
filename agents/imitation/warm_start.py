"""Warm start of an agent: level sets are built of its task for most of a given time, then imitated for the rest."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from agents.agent import RecurrentAgent
from agents.imitation.imitation import ImitationTraining, train_imitation
from restore_env.errors import ImageRestoreError
from restore_env.levels.building import build_levels
from restore_env.plain_data import is_file_name, parse_json
from restore_env.task import Task
from tools_zoo.training.trainer import Progress

BUILDING_SHARE = 0.8
"""Share of the time in which levels are built."""
LEVELS, DEPTH = 64, 2
"""Levels of each set, and the length of their chains at most."""


def collect_levels(
    task: Task,
    seconds: float,
    seed: int,
    folder: Path,
    *,
    pixels: bool,
    report: Callable[[float], None] = lambda _: None,
) -> list[str]:
    """Build level sets of a task for so many seconds, one at least, and return their paths.

    Args:
        task: of the levels.
        seconds: how long.
        seed: of the levels.
        folder: where they are written; those that are there already are used.
        pixels: store the observed patches, too.
        report: called with the elapsed share of the time.
    """
    began, sets, kept = time.monotonic(), list[str](), folder / "levels.json"
    if kept.exists():
        names = parse_json(kept.read_bytes(), kept)
        if not isinstance(names, list) or not all(map(is_file_name, names)):
            raise ImageRestoreError(f"{kept}: expected the names of level sets beside it; delete it to build new ones")
        return [str(folder / name) for name in names]
    while not sets or time.monotonic() - began < seconds:
        path = folder / f"levels-{len(sets) + 1}"
        build_levels(
            task,
            path,
            count=LEVELS,
            depth=min(DEPTH, task.max_steps),
            seed=1000 * seed + len(sets),
            pixels=pixels,
            last_observed=False,
            beyond=True,
            portable=False,
        )
        sets.append(str(path))
        report(min(1.0, (time.monotonic() - began) / max(seconds, 1e-9)))
    kept.write_text(json.dumps([Path(path).name for path in sets]))
    return sets


def warm_start(
    agent: RecurrentAgent,
    task: Task,
    seconds: float,
    seed: int,
    folder: Path,
    report: Callable[[float], None] = lambda _: None,
    trained: bool = False,
) -> None:
    """Train an agent, in place, by imitation of what is best on levels of a task.

    Interrupted and repeated, it uses the levels that it had built.

    Args:
        agent: of either kind.
        task: of the episodes.
        seconds: how long.
        seed: of levels and batches.
        folder: where levels and the run are kept.
        report: called with the elapsed share of the time.
        trained: whether the agent is trained already.
    """
    began, share = time.monotonic(), BUILDING_SHARE
    pixels = "image" in agent.extractor.features.observes
    sets = collect_levels(task, share * seconds, seed, folder, pixels=pixels, report=lambda done: report(share * done))
    left = max(seconds - (time.monotonic() - began), 0.02 * seconds, 0.05)
    settings = ImitationTraining(
        out=folder,
        levels=tuple(sets),
        cost_weight=task.cost_weight,
        minutes=left / 60,
        batch_size=16 if pixels else 64,
        warmup_steps=10,
        seed=seed,
        device=str(agent.device),
    )

    def progress(now: Progress) -> None:
        report(min(1.0, share + (1 - share) * now.step / max(1, now.total)))

    train_imitation(settings, progress, agent, trained)
