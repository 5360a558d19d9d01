"""Toolbox folders that someone else has written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command_line import write_model
from tools_zoo.networks import NETWORKS
from tools_zoo.toolboxes import ToolboxError, ToolWeights, load_toolbox, read_tools, update_toolbox
from tools_zoo.training.tools import write_tools_card
from tools_zoo.weight_files import read_weights, write_weights


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(write_model(tmp_path_factory.mktemp("model"))[1])


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/b", "..", "", "a.b", "a\nb", "x" * 1000, None])
def test_names_do_not_lead_out_of_the_folder(name: str | None, tmp_path: Path) -> None:
    folder = tmp_path / "toolbox"
    tool = ToolWeights("dim", "three_layer", NETWORKS["three_layer"]().state_dict())
    update_toolbox(folder, [tool])
    (tmp_path / "outside.safetensors").write_bytes((folder / "dim.safetensors").read_bytes())
    (folder / "toolbox.json").write_text(json.dumps({"tools": [{"name": name, "network": "three_layer"}]}))
    before = sorted(tmp_path.rglob("*"))
    for use in (load_toolbox, read_tools):
        with pytest.raises(ToolboxError, match=r"\A.*toolbox\.json: a tool is called .*\Z") as error:
            use(folder)
        assert len(str(error.value)) < 700
    with pytest.raises(ToolboxError, match="cannot hold a tool called"):
        update_toolbox(folder, [ToolWeights(str(name or ""), tool.network, tool.state)] if name else [_nameless(tool)])
    assert sorted(tmp_path.rglob("*")) == before


def _nameless(tool: ToolWeights) -> ToolWeights:
    return ToolWeights("", tool.network, tool.state)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([{"name": "dim", "network": "three_layer"}] * 2, "lists a tool twice"),
        ([{"name": "dim", "network": ["three_layer"]}], "unknown network"),
        ([[]], "not a toolbox manifest"),
        (3, "not a toolbox manifest"),
    ],
)
def test_an_odd_manifest_is_one_line(rows: object, reason: str, tmp_path: Path) -> None:
    (tmp_path / "toolbox.json").write_text(json.dumps({"tools": rows}))
    with pytest.raises(ToolboxError, match=rf"\A.*toolbox\.json: .*{reason}.*\Z"):
        load_toolbox(tmp_path)


@pytest.mark.parametrize(
    "recipe", ["[" * 10**5, "[]", "1", '{"seconds": "x"}', '{"earlier": [3]}', '{"earlier": [{"steps": []}]}']
)
def test_an_odd_recipe_is_one_line(recipe: str, model: Path, tmp_path: Path) -> None:
    state, metadata = read_weights(model / "dejpeg_1.safetensors")
    write_weights(tmp_path / "dejpeg_1.safetensors", state, {**metadata, "recipe": recipe})
    (tmp_path / "toolbox.json").write_text('{"tools": [{"name": "dejpeg_1", "network": "three_layer"}]}')
    for use in (load_toolbox, write_tools_card):
        with pytest.raises(ToolboxError, match=r"\A.*dejpeg_1\.safetensors: .*recipe.*\Z"):
            use(tmp_path)
