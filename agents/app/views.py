"""What the page shows of a restoration: pictures of each step as files, with the agent's scores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from agents.app.service import Outcome
from agents.app.tables import BY_HAND, score_table
from agents.restoration.explanation import action_colours, step_names, summarize_vote, vote_picture
from agents.restoration.restorer import Restorer
from restore_env.policy import ScoringPolicy
from restore_env.toolbox import Toolbox

LONGEST = 2048
"""Pixels of the longer side of a picture; larger ones are reduced."""
WHOLE = "whole chain"


@dataclass(frozen=True)
class View:
    """One choice of what is shown."""

    title: str
    before: Path
    after: Path
    votes: Path | None = None
    """The tiles' choices over the picture; None where no agent chose."""
    scores: str = ""
    """HTML: what the agent expected of every tool."""


def make_views(outcome: Outcome, restorer: Restorer, folder: Path) -> list[View]:
    """Write the pictures of a restoration.

    Args:
        outcome: with the stages of its result.
        restorer: that made it.
        folder: gets the pictures, in place of earlier ones.

    Returns:
        The whole chain, then a view for each step.
    """
    result, by_agent = outcome.result, outcome.choices.tools is None
    pipeline = restorer.pipeline(result.scale)
    names = (*pipeline.toolbox.names, Toolbox.STOP_NAME)
    kind: Literal["logits", "q"] | None = pipeline.policy.kind if isinstance(pipeline.policy, ScoringPolicy) else None
    stages = [_write(folder / f"stage{n}.jpg", stage.image) for n, stage in enumerate(result.stages)]
    views = [View(WHOLE, stages[0], stages[-1])]
    colours = [_css(colour) for colour in action_colours(names)]
    titles = step_names(result)
    steps = max(len(titles), len(result.votes) if by_agent else 0)
    for step in range(steps):
        votes, scores = None, ""
        title = titles[step] if step < len(titles) else Toolbox.STOP_NAME
        if by_agent and step < len(result.votes):
            vote = result.votes[step]
            picture = vote_picture(result.stages[step].image, vote, names)
            votes = _write(folder / f"votes{step}.jpg", picture)
            values = summarize_vote(vote, kind, len(names))
            gains = pipeline.policy_input.decide == "values"
            scores = score_table(vote, values, names, colours, gains=gains)
        after = stages[min(step + 1, len(stages) - 1)]
        views.append(View(f"{step + 1}. {title}", stages[step], after, votes, scores or BY_HAND))
    return views


def _write(path: Path, pixels: npt.NDArray[np.uint8]) -> Path:
    picture = Image.fromarray(pixels)
    picture.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    picture.save(path, quality=95, subsampling=0)
    return path


def _css(colour: Any) -> str:
    from matplotlib.colors import to_hex

    return to_hex(colour)
