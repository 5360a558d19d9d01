"""What the tools of a toolbox begin with, where joint training is not to go on from what they are.

A tool that begins as a copy of another one starts from all that the other has learnt, under a name of its own. One
whose last layer begins at zero hands on what it gets: a chain that grows by it loses nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from tools_zoo.networks import NETWORKS, last_layer, zeroed
from tools_zoo.toolboxes import ToolWeights


def begun(
    tools: Mapping[str, ToolWeights], copies: Mapping[str, str], zero_init: Collection[str] = ()
) -> dict[str, ToolWeights]:
    """The tools as they begin, in their order.

    Args:
        tools: as they are, by name.
        copies: the name of a tool, and whose network, weights and recipe it begins with, as those are in ``tools``.
        zero_init: tools whose last layer begins at zero, copies or not.

    Raises:
        ValueError: a name that none of the tools has.
    """
    for name in (*copies, *copies.values(), *zero_init):
        if name not in tools:
            raise ValueError(f"unknown tool {name!r} to begin with: choose from {', '.join(tools)}")
    starts = {name: replace(tools[copies.get(name, name)], name=name) for name in tools}
    return {name: _handing_on(start) if name in zero_init else start for name, start in starts.items()}


def _handing_on(tool: ToolWeights) -> ToolWeights:
    network = NETWORKS[tool.network]()
    network.load_state_dict(dict(tool.state))
    zeroed(last_layer(network))
    return replace(tool, state=network.state_dict())
