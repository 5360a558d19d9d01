"""The agents' benchmark: who plays, what is measured, how baselines are compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import benchmarks.agents.__main__
from agents.agent import RecurrentAgent, save_policy
from agents.rollout import EpisodeResults
from benchmarks.agents.evaluation import AGENT, GREEDY, difference, scores_of, scores_table
from tests.support.toolkit import photographs
from tools_zoo.toolboxes import SHIPPED, load_toolbox

pytestmark = pytest.mark.usefixtures("one_thread")


def played(*psnr: float, seconds: float = 0.2) -> EpisodeResults:
    values = np.array(psnr)
    return EpisodeResults(
        np.full(len(psnr), 20.0), values, values - 20, np.full(len(psnr), 0.5), ((0, 2),) * len(psnr), seconds
    )


def test_rows_are_means_over_patches() -> None:
    (row,) = scores_of({"a": played(21.0, 23.0)}, {})
    assert (row.psnr, row.gain, row.share, row.steps, row.gmacs) == (22, 2, None, 2, 0.5)
    assert row.milliseconds == pytest.approx(100)
    assert row.interval == 1  # of the draws of two patches from two, a quarter each are the lower or the higher twice


def test_a_gain_is_measured_by_the_greedy_oracle_with_the_same_tools() -> None:
    other = f"{GREEDY}, theirs tools"
    results = {AGENT: played(23.0), "theirs": played(23.0), GREEDY: played(24.0), other: played(26.0)}
    rows = scores_of(results, {"theirs": other, other: other})
    assert [row.share for row in rows] == [0.75, 0.5, 1, 1]
    assert scores_table(rows)[2] == f"| {AGENT} | 23.00 | +3.00 ± 0.00 | 75% | 2.00 | 0.50 | 200 |"
    assert "of greedy" not in scores_table(scores_of({AGENT: played(23.0)}, {}))[0]


def test_rivals_are_compared_patch_by_patch() -> None:
    """Patches differ by much, the two policies by the same little on each: that is certain."""
    both = {
        "mild": {AGENT: played(20.0, 30.0, 40.0), "baseline": played(20.5, 30.5, 40.5)},
        "severe": {AGENT: played(22.0, 26.0), "baseline": played(20.0, 22.0)},
    }
    result = difference("baseline", both)
    assert (result.by_severity["mild"].mean, result.by_severity["mild"].half) == pytest.approx((-0.5, 0.0))
    assert (result.by_severity["severe"].mean, result.by_severity["severe"].half) == pytest.approx((3.0, 1.0))
    assert (result.mean.mean, result.mean.half) == pytest.approx((1.25, 0.5))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    Image.fromarray(photographs(1, 80, 100)[0]).save(folder / "a.png")
    return folder


def command(photos: Path, *more: str) -> list[str]:
    searched = ["--search-images", str(photos), "--search-patches", "1", "--beam", "1", "--finalists", "1"]
    return ["--images", str(photos), "--patches", "2", *searched, *more]


def test_all_policies_get_the_same_patches(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A baseline with the same tools and the same agent, under another name and with float32 observations."""
    baseline = tmp_path / "baseline"
    baseline.mkdir()
    for path in (SHIPPED / "default").iterdir():
        (baseline / path.name).symlink_to(path)
    tools = load_toolbox("default").names
    agent = RecurrentAgent(tools, recipe={"observe": "float32"})
    agent.head.bias.data[-1] = 100  # stops at once
    save_policy(agent, baseline / "agent.safetensors")
    numbers = tmp_path / "numbers.json"
    more = [
        "--severity",
        "mild",
        "severe",
        "--oracles",
        "greedy",
        "--against",
        f"still={baseline}",
        "--json",
        str(numbers),
    ]
    assert benchmarks.agents.__main__.main(command(photos, *more)) == 0
    printed = capsys.readouterr().out
    record: dict[str, Any] = json.loads(numbers.read_text())
    for severity in ("mild", "severe"):
        rows = {row["policy"]: row for row in record["severities"][severity]}
        assert rows["still"]["gain"] == 0
        assert rows["still"]["steps"] == 1
        assert rows[GREEDY]["gain"] == rows[f"{GREEDY}, still tools"]["gain"]
        assert rows[GREEDY]["share"] == 1
        assert rows[AGENT]["share"] == pytest.approx(rows[AGENT]["gain"] / rows[GREEDY]["gain"])
        ahead = record["differences"][0]["by_severity"][severity]["mean"]
        assert ahead == pytest.approx(rows[AGENT]["gain"], abs=1e-9)
        assert all(row["milliseconds"] > 0 for row in rows.values())
    assert "| the agent against | mild, dB | severe, dB | mean, dB |" in printed


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--against", "nonsense"], "--against takes NAME=FOLDER, got 'nonsense'"),
        (["--against", "x=no/such/folder"], "no/such/folder: no such folder"),
        (["--against", "x={photos}"], "no toolbox"),
        (["--oracles", "wise"], "invalid choice: 'wise'"),
    ],
)
def test_mistakes_are_told_in_one_line(
    more: list[str], message: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = benchmarks.agents.__main__.main(command(photos, *(text.format(photos=photos) for text in more)))
    except SystemExit as stop:
        code = int(stop.code or 0)
    printed = capsys.readouterr()
    assert (code, printed.out, printed.err.count("\n")) == (2, "", 1)
    assert message in printed.err
