from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from agents.agent import RecurrentAgent, save_policy
from agents.rollout import draw_starts, play
from agents.training.algorithms import Algorithm
from benchmarks import ablations
from benchmarks.ablations import ABLATIONS
from benchmarks.attribution.policies import AblatedPolicy
from restore_env import Task
from restore_env.episodes.batch import EpisodeBatch
from tests.support.toolkit import photographs, random_toolbox
from tools_zoo.catalog import TOOLS
from tools_zoo.networks import NETWORKS
from tools_zoo.toolboxes import ToolWeights, update_toolbox

NAMES = tuple(spec.name for spec in TOOLS)
FEW = TOOLS[:4]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photographs, a toolbox of four tools and its policy."""
    folder = tmp_path_factory.mktemp("ablations")
    (folder / "photos").mkdir()
    for number, picture in enumerate(photographs(2, 200, 220)):
        Image.fromarray(picture).save(folder / "photos" / f"{number}.png")
    tools = [ToolWeights(spec.name, spec.network(), NETWORKS[spec.network()]().state_dict()) for spec in FEW]
    update_toolbox(folder / "box", tools)
    save_policy(RecurrentAgent(tuple(spec.name for spec in FEW)), folder / "box" / "agent.safetensors")
    return folder


def words(folder: Path) -> list[str]:
    box = str(folder / "box")
    few = ["--patches", "2", "--choose-patches", "1", "--minutes", "0.005", "--seeds", "1"]
    return ["--images", str(folder / "photos"), "--toolbox", box, "--before", box, *few]


def test_observations_are_changed_and_memory_is_lost() -> None:
    task = Task(images=photographs(1), toolbox=random_toolbox())
    starts = draw_starts(task, 4, 0)
    agent = RecurrentAgent(NAMES)
    agent.head.bias.data[-1] = 100.0  # nothing but stop, if it may
    assert all(chain == (12,) for chain in play(agent, task, starts).actions)
    assert all(len(chain) == 3 for chain in play(AblatedPolicy(agent, stop=False), task, starts).actions)

    observation = EpisodeBatch(task, 2)
    observation.reset(np.arange(2), starts[:2])
    observed = observation.observe(np.arange(2))
    first, state = agent.scores(observed)
    later = {**observed, "last_action": np.array([3, 3])}
    assert not np.array_equal(agent.scores(later, state)[0], first)
    memoryless = AblatedPolicy(agent, previous=False, memory=False)
    agent.head.bias.data[-1] = 0.0
    assert np.array_equal(memoryless.predict(later, state)[0], agent.predict(observed)[0])


def test_an_ablated_agent_forgets_in_training_too() -> None:
    torch.manual_seed(0)
    agent = ablations.AblatedAgent(NAMES, "q").eval().requires_grad_(False)
    encoded, state = torch.rand(2, agent.extractor.features.width), (torch.rand(1, 2, 50), torch.rand(1, 2, 50))
    none, first = torch.tensor([13, 13]), torch.tensor([0, 0])
    empty = (torch.zeros(1, 2, 50), torch.zeros(1, 2, 50))
    plain = RecurrentAgent.step(agent, encoded, none, empty)[0]
    assert torch.equal(agent.step(encoded, none, empty)[0], plain)
    assert not torch.equal(agent.step(encoded, none, state)[0], plain)
    assert not torch.equal(agent.step(encoded, first, empty)[0], plain)
    agent.memory = agent.previous = False
    assert torch.equal(agent.step(encoded, first, state)[0], plain)


@pytest.mark.parametrize("name", list(ABLATIONS))
def test_an_ablation_fills_its_section(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("agents.training.agent.VALIDATION_EPISODES", 4)
    monkeypatch.setattr("agents.imitation.warm_start.LEVELS", 4)
    values = Algorithm.hyperparameters
    monkeypatch.setattr(Algorithm, "hyperparameters", lambda self, **changes: values(self, **changes) | {"n_envs": 4})
    assert ablations.main([name, *words(folder), "--train-images", str(folder / "photos")]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    count = {"stop": 2, "steps": 5, "joint": 2, "tools": 2, "memory": 4, "algorithms": 2}[name]
    assert len(rows) == 2 + count
    assert rows[0].split(" | ")[1:4] == ["mixed", "best constant chain", "best chain"]


def test_what_choosing_is_worth_stands_beside_each_severity(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "stop.json"
    assert ablations.main(["stop", *words(folder), "--severity", "mild", "severe", "--json", str(file)]) == 0
    record = json.loads(file.read_text())
    assert "| gain, dB | mild | severe | mean |" in record["tables"]
    for variant in record["variants"]:
        assert variant["gains"].keys() == {"mild", "severe"}
        assert all(variant["best"][severity] >= max(0, variant["constant"][severity]) for severity in variant["best"])


def test_an_unknown_severity_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ablations.main(["stop", *words(folder), "--severity", "harsh"]) == 2
    assert "unknown severity 'harsh'" in capsys.readouterr().err
