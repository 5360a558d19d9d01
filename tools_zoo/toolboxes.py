"""Toolboxes on disk: a folder with a safetensors file per tool and ``toolbox.json``, which gives their order."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from restore_env.errors import ImageRestoreError
from restore_env.images.files import write_atomically
from restore_env.plain_data import is_file_name, parse_json
from restore_env.toolbox import Toolbox
from tools_zoo.backends.network_tool import DEFAULT_BACKEND, NetworkTool, check_backend
from tools_zoo.catalog import TOOLS
from tools_zoo.networks import NETWORKS, ToolNetwork
from tools_zoo.weight_files import load_state, read_weights, recipe_of, write_weights

MANIFEST = "toolbox.json"
SHIPPED = Path(__file__).parent / "weights"
"""The folder of the toolboxes that come with the package."""


class ToolboxError(ImageRestoreError):
    """A toolbox that cannot be loaded; the message names the file and says what is wrong, in one line."""


@dataclass(frozen=True)
class ToolWeights:
    """The contents of one tool's file."""

    name: str
    network: str
    """A key of :data:`tools_zoo.networks.NETWORKS`."""
    state: Mapping[str, Tensor]
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """How it was trained, as plain numbers and strings."""


def passes(recipe: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The recipes of all passes of training that led to some weights, the first one first."""
    own = {key: value for key, value in recipe.items() if key != "earlier"}
    return [*(recipe.get("earlier") or []), own]


def toolbox_names() -> list[str]:
    """Names of the shipped toolboxes."""
    return sorted(path.parent.name for path in SHIPPED.glob(f"*/{MANIFEST}"))


def toolbox_folder(name_or_path: str | os.PathLike[str]) -> Path:
    """The folder of a shipped toolbox, or of one of the user's own; raise ToolboxError if it is neither."""
    folder = SHIPPED / name_or_path if str(name_or_path) in toolbox_names() else Path(name_or_path)
    if not (folder / MANIFEST).is_file():
        raise ToolboxError(
            f"{name_or_path}: no toolbox; expected one of {', '.join(toolbox_names())}, a folder with a {MANIFEST},"
            " or, for a task, 'package.module:factory'"
        )
    return folder


def load_toolbox(
    name_or_path: str | os.PathLike[str] = "default",
    device: str | torch.device = "cpu",
    backend: str = DEFAULT_BACKEND,
) -> Toolbox:
    """Load a toolbox by its shipped name ("default") or from a folder that training or import wrote.

    Args:
        name_or_path: the name or the folder.
        device: where the tools run.
        backend: what runs them on a CPU, a key of :data:`tools_zoo.backends.network_tool.BACKENDS`.

    Raises:
        ToolboxError: no such toolbox, or a file that is missing, damaged, or of another network.
        BackendError: no such backend, or a package that it needs is not installed.
    """
    check_backend(backend)
    tools = []
    for weights in read_tools(toolbox_folder(name_or_path)):
        network = tool_network(weights).eval().requires_grad_(False)
        tools.append(NetworkTool(weights.name, network, network.macs_per_pixel, network.receptive_radius, backend))
    return Toolbox(tools, device)


def read_manifest(folder: Path) -> list[tuple[str, str]]:
    """The names of a toolbox's tools and of their networks, in order.

    Raises:
        ToolboxError: the manifest cannot be read, lists no tools, or has names that are not those of files in a folder.
    """
    manifest = folder / MANIFEST
    try:
        values = parse_json(manifest.read_bytes(), manifest, ToolboxError)
        rows = [(row["name"], row["network"]) for row in values["tools"]]
    except (OSError, KeyError, TypeError) as error:
        raise ToolboxError(f"{manifest}: not a toolbox manifest ({type(error).__name__}: {error})") from None
    for name, network in rows:
        if not is_file_name(name):
            raise ToolboxError(f"{manifest}: a tool is called {name!r}; expected letters, digits, _ and - alone")
        if not isinstance(network, str) or network not in NETWORKS:
            raise ToolboxError(f"{manifest}: unknown network {network!r}; expected one of {', '.join(NETWORKS)}")
    if len({name for name, _ in rows}) != len(rows) or not rows:
        raise ToolboxError(f"{manifest}: lists {'a tool twice' if rows else 'no tools'}")
    return rows


def default_toolbox() -> Toolbox:
    """The shipped default toolbox, a fresh copy at each call."""
    return load_toolbox("default")


def read_tools(folder: Path) -> list[ToolWeights]:
    """Read all tools of a toolbox, in order; raise what :func:`read_manifest` and :func:`read_tool` raise."""
    return [read_tool(folder / f"{name}.safetensors", network) for name, network in read_manifest(folder)]


def tool_network(weights: ToolWeights) -> ToolNetwork:
    """The network with a tool's weights."""
    network = NETWORKS[weights.network]()
    network.load_state_dict(dict(weights.state))
    return network


def read_tool(path: Path, network_name: str) -> ToolWeights:
    """Read a tool's file and check that its tensors are those of the network.

    Raises:
        ToolboxError: the network's name is unknown, or the file is missing, damaged, or does not fit the network.
    """
    if network_name not in NETWORKS:
        raise ToolboxError(f"{path}: unknown network {network_name!r}; expected one of {', '.join(NETWORKS)}")
    state, metadata = read_weights(path, ToolboxError)
    load_state(NETWORKS[network_name](), state, path, network_name, ToolboxError)
    return ToolWeights(path.stem, network_name, state, recipe_of(metadata, path, ToolboxError))


def is_tool(path: Path) -> bool:
    """Whether the file is one of a tool's weights; False if it cannot be read."""
    try:
        return read_weights(path)[1].get("network") in NETWORKS
    except ValueError:
        return False


def update_toolbox(folder: str | os.PathLike[str], tools: Sequence[ToolWeights]) -> Path:
    """Write tools into a toolbox folder, beside or over those that it holds, in the order of the tools' table.

    Every file appears whole or not at all. Returns the folder.

    Raises:
        ToolboxError: a tool whose name is not that of a file in a folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for tool in tools:
        if not is_file_name(tool.name):
            raise ToolboxError(f"{folder}: cannot hold a tool called {tool.name!r}: letters, digits, _ and - alone")
        metadata = {"name": tool.name, "network": tool.network, "recipe": json.dumps(dict(tool.recipe))}
        write_weights(folder / f"{tool.name}.safetensors", tool.state, metadata)
    networks = {tool.name: tool.network for tool in tools}
    manifest = folder / MANIFEST
    if manifest.exists():
        networks = dict(read_manifest(folder)) | networks
    order = [spec.name for spec in TOOLS]
    names = sorted(networks, key=lambda name: order.index(name) if name in order else len(order))
    rows = [{"name": name, "network": networks[name]} for name in names]
    write_atomically(manifest, (json.dumps({"tools": rows}, indent=2) + "\n").encode())
    return folder
