"""``imagerestore explain``: a figure of the votes and scores by which a photograph is restored."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.command_line import progress_bar
from agents.commands.restore import add_restorer, add_scale, open_restorer
from agents.restoration.files import EXPLAINED, Job, check_output, identities
from agents.restoration.jobs import as_json, as_line

if TYPE_CHECKING:
    from agents.restoration.restorer import Restoration


def register(commands: Any) -> None:
    """Add ``explain``."""
    parser = commands.add_parser(
        "explain",
        help="draw how the agent chose the tools for a photograph",
        description="Restores a photograph and draws, for each step, the image, the tool that each tile votes for, and"
        " the agent's probability (or Q value) of every action; with a target also the PSNR.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="an image file")
    parser.add_argument("--target", type=Path, metavar="FILE", help="ground truth of FILE, to measure PSNR")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FIGURE", help="PNG, PDF or SVG (default: NAME.explained.png beside FILE)"
    )
    parser.add_argument("--force", action="store_true", help="overwrite a figure that exists (never an input)")
    add_scale(parser)
    add_restorer(parser)
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.set_defaults(run=explain)


def explain(arguments: argparse.Namespace) -> int:
    """Run ``imagerestore explain``."""
    from agents.restoration.explanation import draw_explanation, step_names
    from restore_env.images.decoding import read_image
    from restore_env.policy import ScoringPolicy
    from tools_zoo.figures import check_figure

    source: Path = arguments.file
    job = Job(source, arguments.output or source.with_name(f"{source.stem}{EXPLAINED}.png"))
    check_figure(job.output)
    check_output(job.output, identities([source, arguments.target]), arguments.force)
    photo = read_image(source)
    target = None if arguments.target is None else read_image(arguments.target)
    restorer = open_restorer(arguments)
    kind = restorer.policy.kind if isinstance(restorer.policy, ScoringPolicy) else None
    with progress_bar(source.name) as show:
        result = restorer.restore(photo, target, progress=show, keep_stages=True)
    job.output.parent.mkdir(parents=True, exist_ok=True)
    name, tools = " ".join(source.name.encode("utf-8", "replace").decode().split()), restorer.toolbox.names
    title = f"{name}:  {'  →  '.join(step_names(result)) or 'nothing to do'}"
    clean = None if target is None else target.pixels
    draw_explanation(job.output, result, tools, kind, title=title, target=clean)
    if arguments.json:
        print(json.dumps(as_json(job, result) | {"steps": steps_of(result, tools, kind)}, indent=2))
    else:
        print(as_line(job, result))
    return 0


def steps_of(result: Restoration, tools: tuple[str, ...], kind: Any) -> list[dict[str, Any]]:
    """The votes and scores of each step, as plain data."""
    from agents.restoration.explanation import summarize_vote

    steps, names = [], (*tools, "stop")
    for vote, stage in zip(result.votes, result.stages, strict=False):  # an image may be left after the last vote
        scores = summarize_vote(vote, kind, len(names))
        named = {name: float(value) for name, value in zip(names, scores.values, strict=True)}
        steps.append(
            {
                "action": vote.action,
                "psnr": stage.psnr,
                "measure": scores.measure,
                "scores": {name: value for name, value in named.items() if value == value},  # not NaN
                "tiles": vote.grid.tolist(),
            }
        )
    return steps
