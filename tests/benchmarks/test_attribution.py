"""What choosing is worth and where it comes from, with three tools whose arithmetic is exact."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.agent import RecurrentAgent, save_policy
from agents.policies.oracles import ExhaustiveOracle, GreedyOracle
from agents.rollout import draw_starts, play
from benchmarks.attribution import __main__ as attribution
from benchmarks.attribution.choice import DEPTH, Explorer, without_stop
from benchmarks.attribution.parts import METRICS, PARTS, run_agent, run_chains
from benchmarks.attribution.tables import Line
from benchmarks.attribution.unseen import UNSEEN
from benchmarks.compare.distortions import distortion_of
from restore_env import Task
from tests.support.level_sets import write_photographs

BOX = "tests.support.toolkit:pixelwise_toolbox"
NAMES = ("brighten", "dim", "invert")
EXPOSURE = f"{__name__}:exposure"
pytestmark = pytest.mark.usefixtures("one_thread")


def exposure() -> Any:
    """Too dark or too bright."""
    import albumentations

    return albumentations.Compose([albumentations.RandomGamma(gamma_limit=(60, 170), p=1)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders of photographs and a policy."""
    folder = tmp_path_factory.mktemp("attribution")
    for name, count in (("measured", 6), ("others", 2)):
        write_photographs(folder / name, count)
    save_policy(RecurrentAgent(NAMES), folder / "agent.safetensors")
    return folder


@pytest.fixture(scope="module")
def explorer(folder: Path) -> Explorer:
    return Explorer(folder / "measured", folder / "others", folder / "sets", patches=8, other_patches=4)


def test_bounds_are_those_of_the_oracles(explorer: Explorer) -> None:
    sets = explorer.sets(BOX, distortion=EXPOSURE)
    assert explorer.sets(BOX, distortion=EXPOSURE) is sets
    measured, choice = sets.measured, sets.choice()
    two_steps = replace(measured.task, max_steps=DEPTH)
    best = play(ExhaustiveOracle(DEPTH), two_steps, measured.starts)
    assert choice.best_returns == pytest.approx(best.returns)
    assert run_chains(choice.best, measured).returns == pytest.approx(best.returns)
    assert best.returns.mean() > 0.5
    greedy = play(GreedyOracle(), two_steps, measured.starts).actions
    assert measured.greedy_chains == tuple(without_stop(chain, 3) for chain in greedy)
    constant = sets.other.optima.constant_chain
    assert choice.constant == constant
    assert run_chains([constant] * 8, measured).returns == pytest.approx(choice.constant_returns)


def test_constant_chains_are_found_on_other_photographs(explorer: Explorer, folder: Path) -> None:
    sets = explorer.sets(BOX, distortion=EXPOSURE)
    for part, name in ((sets.measured, "measured"), (sets.other, "others")):
        assert {Path(photograph).parent for photograph in part.levels.manifest.photographs} == {folder / name}


def test_the_constant_chain_is_line_zero_and_the_best_chain_one(explorer: Explorer) -> None:
    sets = explorer.sets(BOX, distortion=EXPOSURE)
    choice, measured = sets.choice(), sets.measured
    shares = []
    for chains in ([choice.constant] * 8, choice.best):
        line = Line.of("", run_chains(chains, measured), choice, measured.toolbox.stop)
        assert line.share is not None
        assert line.tools == np.mean([len(chain) for chain in chains])
        shares.append(line.share.mean)
    assert shares == pytest.approx([0, 1])
    inverted = Line.of("", run_chains([(2,)] * 8, measured), choice, measured.toolbox.stop)
    assert inverted.worse == np.mean(measured.returns((2,)) < -0.5)
    assert inverted.worse > 0


def test_a_removed_tool_is_in_no_chain(explorer: Explorer) -> None:
    sets = explorer.sets(BOX, distortion=EXPOSURE)
    usual, without = sets.choice(), sets.choice([0])
    assert not {0} & {tool for chain in (without.constant, *without.best) for tool in chain}
    assert (without.best_returns <= usual.best_returns).all()
    assert without.best_returns.mean() < usual.best_returns.mean()
    agent = RecurrentAgent(NAMES)
    agent.head.bias.data[0] = 100.0
    assert all(0 in chain for chain in run_agent(agent, sets.measured).actions)
    assert not any(0 in chain for chain in run_agent(agent, sets.measured, [0]).actions)


@pytest.mark.parametrize(("title", "name"), [("motion blur", "motion"), ("rain streaks", "rain"), ("haze", "haze")])
def test_a_factory_distorts_as_the_comparison_does(title: str, name: str, folder: Path) -> None:
    worlds = ({"distortion": UNSEEN[title]}, distortion_of(name))
    one, other = (draw_starts(Task(images=folder / "others", upscale=(1,), **world), 2, 0) for world in worlds)
    assert all(np.array_equal(a.distorted, b.distorted) for a, b in zip(one, other, strict=True))
    assert not any(np.array_equal(start.distorted, start.target) for start in one)


def words(folder: Path) -> list[str]:
    own = ["--toolboxes", BOX, "--toolbox", BOX, "--policy", str(folder / "agent.safetensors")]
    return ["--images", str(folder / "measured"), *own, "--patches", "3", "--choose-patches", "2"]


def test_every_part_is_printed_and_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("restore_env.resolve.IMPORTED_METRICS", {"perceptual": "tests.support.toolkit:softened"})
    file = tmp_path / "attribution.json"
    assert attribution.main([*words(folder), "--parts", *PARTS, "--cache", str(tmp_path), "--json", str(file)]) == 0
    record = json.loads(file.read_text())
    parts = record["severities"]["mixed"]
    assert record["tables"] in capsys.readouterr().out
    assert "3 patches drawn from 5 photographs" in record["tables"]
    assert parts.keys() == PARTS.keys()
    assert [line["name"] for line in parts["toolboxes"][BOX]["lines"]][::4] == ["agent", "best chain"]
    assert [entry["removed"] for entry in parts["removed"]] == list(NAMES)
    assert parts["rewards"].keys() == METRICS.keys()
    assert parts["unseen"].keys() == UNSEEN.keys()
    *kinds, separate, together = parts["kinds"]
    assert sum(line["patches"] for line in kinds) == separate["patches"] == together["patches"] == 3
    assert together["means"][1:] == separate["means"][1:]
    assert all(line["means"][2] >= max(line["means"][0], 0) for line in parts["kinds"])
    chosen, *others = parts["order"][4:]
    assert all(entry["against_chosen"]["mean"] <= 1e-9 for entry in (chosen, *others)), "no order beats the best"


def test_patches_that_are_cached_are_not_computed_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*words(folder), "--choose-images", str(folder / "others"), "--cache", str(tmp_path)]
    assert attribution.main(arguments) == 0
    first = capsys.readouterr().out
    monkeypatch.setattr("restore_env.levels.building._Builder.build", None)
    assert attribution.main(arguments) == 0
    without_times = [
        [line.rsplit("|", 2)[0] for line in text.splitlines()] for text in (first, capsys.readouterr().out)
    ]
    assert without_times[0] == without_times[1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--choose-images", "{folder}"), "in --images and in --choose-images"),
        (("--images", "{folder}/others"), "2 photographs are too few to split"),
        (("--images", "{folder}/none"), "none: no such folder"),
        (("--severity", "mild", "harsh"), "unknown severity 'harsh'"),
        (("--toolboxes", "classic", "--policy", "pure", "--toolbox", BOX), "pure was trained with the tools"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_measured(
    folder: Path, given: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert attribution.main([*words(folder), *(word.format(folder=folder) for word in given)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
