"""Tools as ONNX files for other programs: one file a tool, any batch and size, checked before it is written."""

from __future__ import annotations

from pathlib import Path

import torch

from restore_env.images.files import write_atomically
from tools_zoo.backends.network_tool import NetworkTool, check_backend
from tools_zoo.backends.onnx_models import onnx_model, onnx_runner
from tools_zoo.backends.parity import check_parity
from tools_zoo.training.cards import source_version

INPUT_FORMAT = "float32 RGB (N, 3, H, W) in [0, 1]; nothing is clipped"


def export_tool(tool: NetworkTool, path: Path) -> float:
    """Write a tool as an ONNX model with one input, ``images``, and one output, ``restored``.

    Both are float32 RGB ``(N, 3, H, W)`` for any N, H and W. The model's ``metadata_props`` tell the tool's name, its
    scale, reach (pixels), multiply-accumulates per pixel, the input's format and the version that wrote it.

    Args:
        tool: on the CPU.
        path: the file; it appears whole, or not at all.

    Returns:
        The largest difference between ONNX Runtime and PyTorch on random images.

    Raises:
        BackendError: the extra ``onnx`` is not installed.
        ParityError: the network cannot be converted, or results differ by more than 1e-5. Nothing is written then.
    """
    check_backend("onnx")
    facts = {
        "name": tool.name,
        "scale": tool.scale,
        "receptive_radius": tool.receptive_radius,
        "macs_per_pixel": tool.macs_per_pixel,
        "input": INPUT_FORMAT,
        "source": source_version(),
    }
    model = onnx_model(tool.network, facts)
    difference = check_parity(tool.network, onnx_runner(model, torch.get_num_threads()), str(path))
    write_atomically(path, model)
    return difference
