"""Export of tools as ONNX files: one file per tool, any batch and image size, checked before it is written."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from restore_env.extras import require_extra
from restore_env.images.files import write_atomically
from tools_zoo.backends.network_tool import BackendError, NetworkTool
from tools_zoo.backends.parity import ParityError, check_parity
from tools_zoo.training.cards import source_version

INPUT, OUTPUT = "images", "restored"
"""Names of a model's input and output."""
INPUT_FORMAT = "float32 RGB (N, 3, H, W) in [0, 1]; nothing is clipped"

_TRACED = (2, 3, 43, 45)  # odd, so that what a network does about odd sizes is in the model


def check_export() -> None:
    """Raise :class:`BackendError` if a package of the extra ``onnx`` is not installed."""
    require_extra("onnx", "export", BackendError)


def export_tool(tool: NetworkTool, path: Path) -> float:
    """Write a tool as an ONNX model with one input, ``images``, and one output, ``restored``.

    Both are float32 RGB ``(N, 3, H, W)`` for any N, H and W. The model's ``metadata_props`` hold the tool's name, its
    scale, receptive radius (pixels), multiply-accumulates per pixel, the input's format and the version that wrote it.

    Args:
        tool: on the CPU.
        path: the file; it appears whole, or not at all.

    Returns:
        The largest difference between ONNX Runtime and PyTorch on random images.

    Raises:
        BackendError: the extra ``onnx`` is not installed.
        ParityError: the network cannot be converted, or results differ by more than 1e-5. Nothing is written then.
    """
    check_export()
    facts = {
        "name": tool.name,
        "scale": tool.scale,
        "receptive_radius": tool.receptive_radius,
        "macs_per_pixel": tool.macs_per_pixel,
        "input": INPUT_FORMAT,
        "source": source_version(),
    }
    model = onnx_model(tool.network, facts)
    difference = check_parity(tool.network, _runner(model), str(path))
    write_atomically(path, model)
    return difference


def onnx_model(network: nn.Module, metadata: Mapping[str, Any]) -> bytes:
    """Convert a network that keeps the image's size to a serialised ONNX model.

    Args:
        network: on the CPU, without dropout or other random operations.
        metadata: what the model's ``metadata_props`` hold; what is not a string is written as JSON.

    Raises:
        ParityError: PyTorch cannot convert it.
    """
    import onnx

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of packages that are not needed here
    try:
        free = torch.export.Dim.DYNAMIC
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network,
                (torch.zeros(_TRACED),),
                dynamo=True,
                dynamic_shapes=({0: free, 2: free, 3: free},),
                input_names=[INPUT],
                output_names=[OUTPUT],
                verbose=False,
            )
    except Exception as error:  # of the exporter's many kinds
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ParityError(f"{type(network).__name__} cannot be converted to ONNX: {reason}") from None
    assert program is not None
    model = program.model_proto
    entries = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    onnx.helper.set_model_props(model, entries)
    data: bytes = model.SerializeToString()
    return data


def _runner(model: bytes) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run([OUTPUT], {INPUT: images.contiguous().numpy()})[0])
