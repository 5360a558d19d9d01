"""Import of the published RL-Restore checkpoints, TensorFlow 1 tensor bundles, without TensorFlow.

Every bundle is checked in full (:mod:`tools_zoo.published.tensor_bundles`) before anything is written. The published
networks were trained on images whose height and width were swapped. The import swaps the two axes of every kernel, so
that the imported networks take images as they are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from restore_env.images.arrays import Float
from tools_zoo.catalog import TOOLS
from tools_zoo.networks import NETWORKS
from tools_zoo.published.tensor_bundles import read_bundle, variable
from tools_zoo.toolboxes import MANIFEST, ToolboxError, ToolWeights, update_toolbox
from tools_zoo.weight_files import read_weights, recipe_of, write_weights

SOURCE = "RL-Restore, published checkpoints"
"""The source in the recipe of an imported tool or agent."""
AGENT = "agent.safetensors"
"""The imported agent's file, beside the tools."""


LAYERS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "three_layer": {"conv1": "conv1", "conv2": "conv2", "conv3": "conv3"},
        "eight_layer": {
            "conv1": "head",
            "conv1_2": "squeeze",
            "conv2": "block1.conv1",
            "conv2a": "block1.conv2",
            "conv2c": "block2.conv1",
            "conv2d": "block2.conv2",
            "conv2_2": "expand",
            "conv3": "tail",
        },
    }
)
"""For each tool network, the published name of every layer and ours."""


_EMBED, _HIDDEN, _GRID, _CHANNELS = 32, 50, 4, 24  # widths of the agent; its features are 4x4 of 24 channels
_CELL = "prediction/prediction_rnn/basic_lstm_cell"

_AGENT_SHAPES: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "prediction/l1/w": (9, 9, 3, 32),
        "prediction/l1/biases": (32,),
        "prediction/l2/w": (5, 5, 32, _CHANNELS),
        "prediction/l2/biases": (_CHANNELS,),
        "prediction/l3/w": (5, 5, _CHANNELS, _CHANNELS),
        "prediction/l3/biases": (_CHANNELS,),
        "prediction/l4/w": (5, 5, _CHANNELS, _CHANNELS),
        "prediction/l4/biases": (_CHANNELS,),
        "prediction/l7/Matrix": (_GRID * _GRID * _CHANNELS, _EMBED),
        "prediction/l7/bias": (_EMBED,),
        f"{_CELL}/kernel": (_EMBED + len(TOOLS) + _HIDDEN, 4 * _HIDDEN),
        f"{_CELL}/bias": (4 * _HIDDEN,),
        "prediction/q/Matrix": (_HIDDEN, len(TOOLS) + 1),
        "prediction/q/bias": (len(TOOLS) + 1,),
    }
)
"""The float32 variables of the agent's bundle."""


def import_rl_restore(src: str | os.PathLike[str], out: str | os.PathLike[str]) -> Path:
    """Turn the published RL-Restore checkpoints into a toolbox folder with the agent beside the tools.

    The agent's file has torch's layout: ``features.0`` to ``features.3``, ``embed``, ``lstm`` (its input: 32 features,
    then the previous tool as a one-hot of 12) and ``head`` (Q values of the 12 tools and stop).

    Args:
        src: the folder that holds ``toolbox/`` and ``models/``, or one of these two, or the folder around it.
        out: the toolbox folder to write. It may hold an earlier import, but no other toolbox.

    Returns:
        ``out``.

    Raises:
        ToolboxError: a file is missing, damaged or of another network, or ``out`` holds another toolbox. Then nothing
            is written.
    """
    root, out = _find_root(Path(src)), Path(out)
    _check_free(out)
    tools = [
        ToolWeights(
            name=spec.name,
            network=spec.network(),
            state=_read_tool(root / "toolbox" / f"tool{number:02d}", spec.network()),
            recipe=_recipe(f"tool{number:02d}"),
        )
        for number, spec in enumerate(TOOLS, 1)
    ]
    variables = {name: variable("<f4", shape) for name, shape in _AGENT_SHAPES.items()}
    variables["step/step"] = variable("<i4", ())
    agent = _agent_state(read_bundle(root / "models" / "model", variables, "agent"))
    metadata = {
        "kind": "q",
        "tools": json.dumps([spec.name for spec in TOOLS]),
        "patch_size": "63",
        "recipe": json.dumps(_recipe("model")),
    }
    out.mkdir(parents=True, exist_ok=True)
    write_weights(out / AGENT, agent, metadata)
    return update_toolbox(out, tools)


def _recipe(checkpoint: str) -> dict[str, Any]:
    return {"source": SOURCE, "checkpoint": checkpoint, "paper": "Yu et al., CVPR 2018", "license": "MIT"}


def _find_root(src: Path) -> Path:
    if not src.is_dir():
        raise ToolboxError(f"{src}: no such folder")
    around = [src.parent] if src.resolve().name in ("toolbox", "models") else []
    for folder in (src, *around, *sorted(path for path in src.iterdir() if path.is_dir())):
        if (folder / "toolbox").is_dir() and (folder / "models").is_dir():
            return folder
    raise ToolboxError(f"{src}: expected a folder that holds toolbox/ and models/, as RL-Restore was published")


def _check_free(out: Path) -> None:
    """Refuse a folder whose toolbox the import would overwrite."""
    if out.exists() and not out.is_dir():
        raise ToolboxError(f"{out}: not a folder")
    if not (out / MANIFEST).exists():
        return
    try:
        source = recipe_of(read_weights(out / AGENT)[1], out / AGENT).get("source")
    except ValueError:
        source = None
    if source != SOURCE:
        raise ToolboxError(f"{out}: holds another toolbox, which the import would overwrite; choose another folder")


def _read_tool(prefix: Path, network: str) -> dict[str, Tensor]:
    layers = LAYERS[network]
    shapes = {key: tuple(value.shape) for key, value in NETWORKS[network]().state_dict().items()}
    expected = {}
    for theirs, ours in layers.items():
        outputs, inputs, height, width = shapes[f"{ours}.weight"]
        expected[f"{theirs}/weights"] = variable("<f4", (height, width, inputs, outputs))
        expected[f"{theirs}/biases"] = variable("<f4", (outputs,))
    variables = read_bundle(prefix, expected, network)
    state: dict[str, Tensor] = {}
    for theirs, ours in layers.items():
        state[f"{ours}.weight"] = _kernel(variables[f"{theirs}/weights"])
        state[f"{ours}.bias"] = _tensor(variables[f"{theirs}/biases"])
    return state


def _agent_state(variables: Mapping[str, Float]) -> dict[str, Tensor]:
    """The agent's tensors under the names and in the layout of torch's layers."""
    state: dict[str, Tensor] = {}
    for layer in range(4):
        state[f"features.{layer}.weight"] = _kernel(variables[f"prediction/l{layer + 1}/w"])
        state[f"features.{layer}.bias"] = _tensor(variables[f"prediction/l{layer + 1}/biases"])
    grid = variables["prediction/l7/Matrix"].reshape(_GRID, _GRID, _CHANNELS, _EMBED)  # width, height, channel, output
    state["embed.weight"] = _tensor(grid.transpose(3, 2, 1, 0).reshape(_EMBED, -1))
    state["embed.bias"] = _tensor(variables["prediction/l7/bias"])
    inputs = _EMBED + len(TOOLS)
    weights = _torch_gates(variables[f"{_CELL}/kernel"].T)
    biases = _torch_gates(variables[f"{_CELL}/bias"])
    biases[_HIDDEN : 2 * _HIDDEN] += 1  # TensorFlow adds it to the forget gate at run time
    state["lstm.weight_ih_l0"] = _tensor(weights[:, :inputs])
    state["lstm.weight_hh_l0"] = _tensor(weights[:, inputs:])
    state["lstm.bias_ih_l0"] = _tensor(biases)
    state["lstm.bias_hh_l0"] = torch.zeros(4 * _HIDDEN)
    state["head.weight"] = _tensor(variables["prediction/q/Matrix"].T)
    state["head.bias"] = _tensor(variables["prediction/q/bias"])
    return state


def _torch_gates(rows: Float) -> Float:
    """Reorder the four gates, blocks of rows, from TensorFlow's i, j, f, o to torch's i, f, g (that is j), o."""
    return rows.reshape(4, _HIDDEN, -1)[[0, 2, 1, 3]].reshape(rows.shape)


def _kernel(kernel: Float) -> Tensor:
    """HWIO of a network for swapped images to OIHW of one for images as they are."""
    return _tensor(kernel.transpose(3, 2, 1, 0))


def _tensor(array: Float) -> Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
