"""The page's tables as HTML: the steps of a restoration, and what the agent expected of every tool."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from agents.app.choices import Choices
from agents.restoration.explanation import ActionScores, step_names
from agents.restoration.restorer import Restoration
from agents.restoration.tiled_episode import Vote
from restore_env.metrics import EQUAL

BY_HAND = "<p class='ir-note'>This step was chosen by hand: the agent was not asked.</p>"


def error_text(message: str) -> str:
    """An error as a box."""
    return f"<div class='ir-error' role='alert'>{escape(message)}</div>"


def outcome_text(name: str, result: Restoration, choices: Choices, notes: Sequence[str]) -> str:
    """The chain, and a table of what was expected of each step and what came."""
    chain = " → ".join(step_names(result))
    head = f"<p class='ir-chain'><b>{escape(name)}</b>: {escape(chain) or 'no tool'}</p>"
    return (
        head
        + "".join(f"<p class='ir-note'>{escape(line)}</p>" for line in _lines(result, choices, notes))
        + _steps(result)
    )


def _lines(result: Restoration, choices: Choices, notes: Sequence[str]) -> list[str]:
    height, width = result.image.shape[:2]
    lines = [f"{width}x{height}, {result.seconds:.1f} s."]
    if not result.toolchain and choices.tools is None:
        lines.append(f"The agent expected no tool to gain {choices.caution:g} dB or more.")
    if result.taken_back:
        lines.append(f"Taken back, since colours would have changed: {', '.join(result.taken_back)}.")
    if choices.strength < 1 and result.toolchain:
        lines.append(f"The result has {choices.strength:.0%} of the change; the steps before the last show all of it.")
    if result.psnr_before is not None and result.psnr_before > EQUAL:
        lines.append(f"Nothing is wrong with this photograph. PSNR of the result: {result.psnr_after:.1f} dB.")
    return [*lines, *(f"Note: {note}." for note in notes)]


def _steps(result: Restoration) -> str:
    """A row for each tool: expected and measured gain, and by how much the picture changed."""
    if not result.toolchain:
        return ""
    heads = ["tool", "expected", "came", "change"]
    known = result.psnr_after is not None
    rows = []
    for step, tool in enumerate(step_names(result)):
        vote = result.votes[step] if step < len(result.votes) else None
        before, after = result.stages[step], result.stages[step + 1]
        change = np.abs(after.image.astype(np.int16) - before.image).mean()
        came = _signed(result.stages[-1].psnr, before.psnr)
        expected = "-" if vote is None or vote.predicted is None else f"{vote.predicted:+.2f}"
        rows.append([f"{step + 1}. {escape(tool)}", expected, came, f"{change:.1f}"])
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    header = "".join(f"<th>{head}</th>" for head in heads)
    legend = "Expected and came: gain in PSNR, dB, of the tool and those after it. Change: mean of the pixels, of 255."
    legend += "" if known else " What came is known only beside a clean version of the picture (under Options)."
    table = f"<table class='ir-steps'><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table>"
    return f"<div class='ir-wide'>{table}</div><p class='ir-note'>{legend}</p>"


def _signed(after: float | None, before: float | None) -> str:
    return "-" if after is None or before is None or before > EQUAL else f"{after - before:+.2f}"


def score_table(vote: Vote, scores: ActionScores, names: Sequence[str], colours: Sequence[str], *, gains: bool) -> str:
    """A bar for every action, with the tiles that chose it; the action that was taken is bold.

    Args:
        vote: of the step.
        scores: of every action.
        names: of all actions.
        colours: in CSS, of all actions.
        gains: the scores are predicted gains in dB.
    """
    longest = max((value for value in scores.values if not math.isnan(value)), default=1.0)
    rows = []
    for name, value, colour in zip(names, scores.values, colours, strict=True):
        tiles = vote.counts.get(name, 0)
        width = 0.0 if math.isnan(value) or longest <= 0 else max(0.0, value / longest)
        chosen = " class='ir-chosen'" if name == vote.action else ""
        rows.append(
            f"<tr{chosen}><th scope='row'><i style='background:{colour}'></i>{escape(name)}</th>"
            f"<td class='ir-bar'><i style='width:{width:.1%};background:{colour}'></i></td>"
            f"<td>{_value(value, scores.measure)}</td><td>{tiles or ''}</td></tr>"
        )
    measure = "expected, dB" if gains else scores.measure
    head = f"<tr><th>tool</th><th></th><th>{measure}</th><th>tiles</th></tr>"
    return f"<table class='ir-scores'><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"


def _value(value: float, measure: str) -> str:
    if math.isnan(value):
        return "not allowed"
    return f"{value:+.2f}" if measure == "Q value" else f"{value:.0%}"
