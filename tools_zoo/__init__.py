"""The tools: their table, networks, weights and training."""

from tools_zoo.backends.network_tool import BACKENDS, BackendError, with_backend
from tools_zoo.catalog import TOOLS, ToolSpec
from tools_zoo.toolboxes import ToolboxError, default_toolbox, load_toolbox, toolbox_names

__all__ = [
    "BACKENDS",
    "TOOLS",
    "BackendError",
    "ToolSpec",
    "ToolboxError",
    "default_toolbox",
    "load_toolbox",
    "toolbox_names",
    "with_backend",
]
