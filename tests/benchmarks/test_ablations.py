from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agents.agent import RecurrentAgent, save_policy
from agents.imitation.demonstrations import Demonstrations
from agents.rollout import draw_starts, play
from agents.training.algorithms import Algorithm
from benchmarks import ablations
from benchmarks.ablations import ABLATIONS, AblatedPolicy
from restore_env import Task
from restore_env.episodes.batch import EpisodeBatch
from tests.support.toolkit import photographs, random_toolbox
from tools_zoo.catalog import TOOLS
from tools_zoo.networks import NETWORKS
from tools_zoo.toolboxes import ToolWeights, update_toolbox

NAMES = tuple(spec.name for spec in TOOLS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photographs, a toolbox and a policy."""
    folder = tmp_path_factory.mktemp("ablations")
    (folder / "photos").mkdir()
    for number, picture in enumerate(photographs(2, 200, 220)):
        Image.fromarray(picture).save(folder / "photos" / f"{number}.png")
    tools = [ToolWeights(spec.name, spec.network(), NETWORKS[spec.network()]().state_dict()) for spec in TOOLS]
    update_toolbox(folder / "box", tools)
    save_policy(RecurrentAgent(NAMES), folder / "agent.safetensors")
    return folder


def words(folder: Path) -> list[str]:
    return ["--images", str(folder / "photos")]


def own(folder: Path) -> list[str]:
    return ["--toolbox", str(folder / "box"), "--policy", str(folder / "agent.safetensors"), "--patches", "2"]


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


def test_every_step_becomes_an_episode() -> None:
    rng = np.random.default_rng(0)
    observed = Demonstrations(
        rng.integers(0, 255, (2, 3, 5, 5, 3), dtype=np.uint8),
        np.arange(6).reshape(2, 3),
        np.ones((2, 3, 4), bool),
        rng.random((2, 3, 4), dtype=np.float32),
    )
    steps = ablations.single_steps(observed)
    assert len(steps) == 6
    assert steps.last_actions.tolist() == [[0], [1], [2], [3], [4], [5]]
    assert np.array_equal(steps.images[4, 0], observed.images[1, 1])


@pytest.mark.parametrize("name", list(ABLATIONS))
def test_an_ablation_fills_its_section(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("agents.training.agent.VALIDATION_EPISODES", 4)
    values = Algorithm.hyperparameters
    monkeypatch.setattr(Algorithm, "hyperparameters", lambda self, **changes: values(self, **changes) | {"n_envs": 4})
    arguments = [name, *words(folder), *own(folder), "--minutes", "0.005", "--train-images", str(folder / "photos")]
    arguments += ["--seeds", "1"]
    assert ablations.main(arguments) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + {"stop": 2, "steps": 5, "tools": 2, "memory": 4, "algorithms": 2}[name]
