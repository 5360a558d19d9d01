"""``imagerestore export``: write tools in other formats."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def register(commands: Any) -> None:
    """Add ``export onnx``."""
    parser = commands.add_parser("export", help="write tools for other programs")
    formats = parser.add_subparsers(dest="format", required=True, metavar="FORMAT")
    onnx = formats.add_parser(
        "onnx",
        help="one .onnx file a tool, for ONNX Runtime and others",
        description="Writes each tool as OUT/NAME.onnx: float32 RGB (N, 3, H, W) in [0, 1] in and out, any N, H and W."
        " A file is written only if ONNX Runtime gives what PyTorch gives.",
    )
    onnx.add_argument("--toolbox", default="default", metavar="NAME|FOLDER", help="shipped name, or a folder")
    onnx.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    onnx.add_argument("--tool", nargs="+", metavar="NAME", help="tools to write (default: all of the toolbox)")
    onnx.set_defaults(run=export_onnx)


def export_onnx(arguments: argparse.Namespace) -> int:
    """Run ``imagerestore export onnx``."""
    from tools_zoo.backends.network_tool import NetworkTool
    from tools_zoo.backends.onnx_export import check_export, export_tool
    from tools_zoo.toolboxes import load_toolbox

    check_export()
    toolbox = load_toolbox(arguments.toolbox)
    names = list(dict.fromkeys(arguments.tool or toolbox.names))
    unknown = [name for name in names if name not in toolbox.names]
    if unknown:
        raise ValueError(f"no tool {unknown[0]!r} in this toolbox: choose from {', '.join(toolbox.names)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in names:
        tool = toolbox[toolbox.action(name)]
        assert isinstance(tool, NetworkTool)
        path = arguments.out / f"{name}.onnx"
        difference = export_tool(tool, path)
        print(
            f"{path}: {path.stat().st_size / 1e3:.0f} kB, differs from PyTorch by {difference:.1g} at most", flush=True
        )
    return 0
