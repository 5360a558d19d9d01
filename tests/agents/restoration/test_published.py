"""The published agent in the environment, on the command line and on photographs gives what its authors' code gave.

The published networks were trained on images with height and width swapped; the import swaps the kernels' axes. The
synthetic pairs were swapped for the published networks, too, so they go into the imported ones as they are. The
photographs of ``mine`` were not: the imported networks get them swapped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents.agent import RecurrentAgent, load_policy
from agents.cli import main
from agents.policy_input import PUBLISHED, PolicyInput
from agents.restoration.restorer import Restorer, quality
from restore_env import ImageRestoreVectorEnv
from restore_env.images.arrays import Pixels
from restore_env.images.decoding import read_image
from restore_env.images.tiling import to_pixels
from tests.support.toolkit import pixelwise_toolbox, random_toolbox
from tools_zoo.toolboxes import load_toolbox

pytestmark = pytest.mark.usefixtures("one_thread")
SEVERITIES = ("mild", "moderate", "severe")


@pytest.fixture(scope="module")
def imported(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toolbox and agent, imported by the command."""
    folder = tmp_path_factory.mktemp("imported") / "rl_restore"
    assert main(["import-rl-restore", str(published), str(folder)]) == 0
    return folder


def expected_of(published: Path, severity: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((published / "expected" / "agent.json").read_text())[severity]
    return record


def pairs(published: Path, severity: str) -> dict[str, list[Pixels]]:
    """The synthetic pairs as ``reset``'s options."""
    sides = {"distorted": "in", "target": "gt"}
    return {
        side: [read_image(path).pixels for path in sorted((published / "test" / f"{severity}_{tag}").iterdir())]
        for side, tag in sides.items()
    }


@pytest.mark.parametrize("severity", SEVERITIES)
def test_in_the_vector_env(severity: str, published: Path, imported: Path) -> None:
    expected, agent = expected_of(published, severity), load_policy(imported)
    env = ImageRestoreVectorEnv(
        4,
        published / "test" / f"{severity}_gt",
        toolbox=load_toolbox(imported),
        dtype=PolicyInput.of(agent).observe,
        autoreset_mode="Disabled",
    )
    observation, info = env.reset(options=pairs(published, severity))
    np.testing.assert_allclose(info["psnr"], expected["base"], atol=1e-3)
    state = None
    for number, step in enumerate(expected["steps"], 1):
        scores, following = agent.scores(observation, state)
        np.testing.assert_allclose(scores, step["q"], atol=1e-4, rtol=0)
        actions, state = agent.predict(observation, state)
        assert actions.tolist() == step["action"]
        np.testing.assert_array_equal(state[0], following[0])
        observation, _, over, _, info = env.step(actions)
        np.testing.assert_allclose(info["psnr"], step["psnr"], atol=1e-3)
        assert over.tolist() == [number == 3 or action == env.toolbox.stop for action in step["action"]]


@pytest.mark.parametrize("severity", SEVERITIES)
def test_by_the_evaluate_command(
    severity: str, published: Path, imported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command measures what would be saved: the published results, clipped and rounded to 8 bits."""
    folders = [str(published / "test" / f"{severity}_{tag}") for tag in ("in", "gt")]
    model = ["--policy", str(imported), "--toolbox", str(imported)]
    assert main(["evaluate", "--distorted", folders[0], "--target", folders[1], *model, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["images"]
    expected, toolbox = expected_of(published, severity), load_toolbox(imported)
    chains = [[toolbox.name(step["action"][i]) for step in expected["steps"]] for i in range(4)]
    assert [row["name"] for row in rows] == expected["names"]
    assert [row["toolchain"] for row in rows] == [[name for name in chain if name != "stop"] for chain in chains]
    finals = np.load(published / "expected" / f"{severity}.npz")["final"][..., ::-1]  # the file holds B, G, R
    for row, final, target in zip(rows, finals, pairs(published, severity)["target"], strict=True):
        saved = to_pixels(torch.tensor(final.copy()).permute(2, 0, 1)[None])
        assert row["psnr_after"] == pytest.approx(quality(saved, target), abs=1e-3)


def test_photographs_are_restored_as_published(published: Path, imported: Path) -> None:
    """The photographs were not transposed for the published networks, so they are for the imported ones."""
    restorer = Restorer(imported, imported)
    expected = json.loads((published / "expected" / "mine.json").read_text())
    for name, entry in expected.items():
        pixels = read_image(published / "test" / "mine" / name).pixels
        result = restorer.restore(np.ascontiguousarray(pixels.transpose(1, 0, 2)), keep_float=True)
        assert [restorer.toolbox.action(vote.action) for vote in result.votes] == entry["chain"]
        assert [vote.grid.T.ravel().tolist() for vote in result.votes] == entry["votes"]
        assert result.float_image is not None
        with np.load(published / "expected" / f"mine_{Path(name).stem}.npz") as arrays:
            final = arrays[arrays.files[0]].reshape(pixels.shape)
        np.testing.assert_allclose(result.float_image.transpose(1, 0, 2), final, rtol=0, atol=2e-6)


# Without the published data -----------------------------------------------------------------------------------------


def test_a_policys_recipe_says_what_its_input_is() -> None:
    toolbox = random_toolbox()
    plain = RecurrentAgent(toolbox.names)
    unclipped = RecurrentAgent(toolbox.names, recipe={"source": "x", "observe": "float32", "borders": False})
    assert Restorer(toolbox, plain).pipeline().policy_input == PolicyInput("uint8", True)
    assert Restorer(toolbox, unclipped).pipeline().policy_input == PUBLISHED
    assert Restorer(pixelwise_toolbox(), object()).pipeline().policy_input == PolicyInput()  # type: ignore[arg-type]


@pytest.mark.parametrize("recipe", [{"observe": "uint16"}, {"borders": "no"}])
def test_a_recipe_with_another_value_is_refused(recipe: dict[str, Any]) -> None:
    toolbox = random_toolbox()
    (name,) = recipe
    with pytest.raises(ValueError, match=f"{name} must be"):
        Restorer(toolbox, RecurrentAgent(toolbox.names, recipe=recipe))
