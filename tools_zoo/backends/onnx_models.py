"""Networks as ONNX models: any batch, height and width."""

from __future__ import annotations

import json
import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tools_zoo.backends.parity import ParityError

INPUT, OUTPUT = "images", "restored"
"""The names of a model's input, float32 RGB ``(N, 3, H, W)`` in [0, 1], and of its output, of the same kind."""

_TRACED = (2, 3, 43, 45)  # odd, so that what a network does about odd sizes is in the model
_TRACING = threading.Lock()  # PyTorch traces one network at a time


def onnx_model(network: nn.Module, metadata: Mapping[str, Any] | None = None) -> bytes:
    """Convert a network that keeps the image's size.

    Networks of one architecture are traced once; each gets its own weights. That the results are those of the network
    is for :func:`tools_zoo.backends.parity.check_parity` to say.

    Args:
        network: on the CPU, without dropout or other chance.
        metadata: what the model's ``metadata_props`` hold; what is not a string is written as JSON.

    Returns:
        The serialised model, inputs and outputs named :data:`INPUT` and :data:`OUTPUT`.

    Raises:
        ParityError: PyTorch cannot convert it.
    """
    import onnx

    with _TRACING:
        template = _traced(_Architecture(network))
        model = onnx.load_from_string(template)
        state = {key: value.detach().cpu().numpy() for key, value in network.state_dict().items()}
        tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        if not state.keys() <= tensors.keys():
            model = onnx.load_from_string(_trace(network))
        else:
            for name, values in state.items():
                tensors[name].CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(values), name))
    entries = {key: value if isinstance(value, str) else json.dumps(value) for key, value in (metadata or {}).items()}
    onnx.helper.set_model_props(model, entries)
    data: bytes = model.SerializeToString()
    return data


class _Architecture:
    """A network that equals every other one of the same layers."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        shapes = tuple((key, tuple(value.shape)) for key, value in network.state_dict().items())
        self._key = (type(network), repr(network), shapes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Architecture) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


@lru_cache(maxsize=16)
def _traced(architecture: _Architecture) -> bytes:
    return _trace(architecture.network)


def _trace(network: nn.Module) -> bytes:
    try:
        free = torch.export.Dim.DYNAMIC
        with _quietly():
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
    data: bytes = program.model_proto.SerializeToString()
    return data


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what the exporter says of packages that are not needed here."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def onnx_runner(model: bytes, threads: int) -> Callable[[Tensor], Tensor]:
    """What runs a model by ONNX Runtime on the CPU; it may be called from several threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # a toolbox is a dozen sessions: threads that wait for work must leave the cores to the others
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        outputs = session.run([OUTPUT], {INPUT: images.detach().contiguous().numpy()})
        return torch.from_numpy(outputs[0])

    return run


def openvino_runner(model: bytes, threads: int) -> Callable[[Tensor], Tensor]:
    """What runs a model by OpenVINO on the CPU, in float32; it may be called from several threads."""
    import openvino

    core = openvino.Core()
    # without the hint a processor that knows bfloat16 computes in it
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    compiled = core.compile_model(core.read_model(model), "CPU", settings)
    own = threading.local()

    def run(images: Tensor) -> Tensor:
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
        whole = images.detach().contiguous().numpy()
        outputs = own.request.infer([openvino.Tensor(whole, shared_memory=True)])
        return torch.from_numpy(outputs[0])

    return run
