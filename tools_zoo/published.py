"""Import of the published RL-Restore checkpoints, TensorFlow 1 tensor bundles, without TensorFlow.

A bundle is two files. ``NAME.data-00000-of-00001`` holds the variables one after the other, little-endian, convolution
kernels as height, width, input, output. ``NAME.index`` is a sorted table (LevelDB's format) that gives every variable's
type, shape, place and CRC-32C; both are checked in full before anything is written.

The published networks were trained on images whose height and width were swapped. The import swaps the two axes of
every kernel, so that the imported networks take images as they are.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from restore_env.writing import write_atomically
from tools_zoo.networks import NETWORKS
from tools_zoo.table import TOOLS
from tools_zoo.toolboxes import MANIFEST, ToolboxError, ToolWeights, update_toolbox

SOURCE = "RL-Restore, published checkpoints"
"""What the recipe of an imported tool or agent gives as its source."""
AGENT = "agent.safetensors"
"""The imported agent's file, beside the tools."""

Float = npt.NDArray[np.float32]

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


@dataclass(frozen=True)
class Variable:
    """Type and shape of one variable of a bundle."""

    dtype: str
    """A NumPy type: "<f4" or "<i4"."""
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """How many bytes it takes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def __str__(self) -> str:
        return f"{np.dtype(self.dtype).name} {self.shape}"


_EMBED, _HIDDEN, _GRID, _CHANNELS = 32, 50, 4, 24  # widths of the agent; its features are 4x4 of 24 channels
_CELL = "prediction/prediction_rnn/basic_lstm_cell"

AGENT_VARIABLES: Mapping[str, Variable] = MappingProxyType(
    {
        "prediction/l1/w": Variable("<f4", (9, 9, 3, 32)),
        "prediction/l1/biases": Variable("<f4", (32,)),
        "prediction/l2/w": Variable("<f4", (5, 5, 32, _CHANNELS)),
        "prediction/l2/biases": Variable("<f4", (_CHANNELS,)),
        "prediction/l3/w": Variable("<f4", (5, 5, _CHANNELS, _CHANNELS)),
        "prediction/l3/biases": Variable("<f4", (_CHANNELS,)),
        "prediction/l4/w": Variable("<f4", (5, 5, _CHANNELS, _CHANNELS)),
        "prediction/l4/biases": Variable("<f4", (_CHANNELS,)),
        "prediction/l7/Matrix": Variable("<f4", (_GRID * _GRID * _CHANNELS, _EMBED)),
        "prediction/l7/bias": Variable("<f4", (_EMBED,)),
        f"{_CELL}/kernel": Variable("<f4", (_EMBED + len(TOOLS) + _HIDDEN, 4 * _HIDDEN)),
        f"{_CELL}/bias": Variable("<f4", (4 * _HIDDEN,)),
        "prediction/q/Matrix": Variable("<f4", (_HIDDEN, len(TOOLS) + 1)),
        "prediction/q/bias": Variable("<f4", (len(TOOLS) + 1,)),
        "step/step": Variable("<i4", ()),
    }
)
"""What the agent's bundle holds."""


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
    agent = _agent_state(read_bundle(root / "models" / "model", AGENT_VARIABLES, "agent"))
    metadata = {
        "kind": "q",
        "tools": json.dumps([spec.name for spec in TOOLS]),
        "patch_size": "63",
        "recipe": json.dumps(_recipe("model")),
    }
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / AGENT, save(agent, metadata))
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
        with safe_open(out / AGENT, framework="pt") as file:
            source = json.loads((file.metadata() or {}).get("recipe", "{}")).get("source")
    except (SafetensorError, OSError, ValueError, AttributeError):
        source = None
    if source != SOURCE:
        raise ToolboxError(f"{out}: holds another toolbox, which the import would overwrite; choose another folder")


def _read_tool(prefix: Path, network: str) -> dict[str, Tensor]:
    layers = LAYERS[network]
    shapes = {key: tuple(value.shape) for key, value in NETWORKS[network]().state_dict().items()}
    expected: dict[str, Variable] = {}
    for theirs, ours in layers.items():
        outputs, inputs, height, width = shapes[f"{ours}.weight"]
        expected[f"{theirs}/weights"] = Variable("<f4", (height, width, inputs, outputs))
        expected[f"{theirs}/biases"] = Variable("<f4", (outputs,))
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


def read_bundle(prefix: Path, expected: Mapping[str, Variable], network: str) -> dict[str, npt.NDArray[Any]]:
    """Read a TensorFlow 1 tensor bundle of one shard and check it in full.

    Args:
        prefix: the two files' common name, ``folder/tool03``.
        expected: the variables that it must hold, no more and no less.
        network: what errors call the network.

    Returns:
        The variables by name.

    Raises:
        ToolboxError: a file is missing, cut, too long, damaged, of another network, or holds NaN or infinity.
    """
    data_path = prefix.with_name(f"{prefix.name}.data-00000-of-00001")
    index_path = prefix.with_name(f"{prefix.name}.index")
    size, expected_size = _size(data_path), sum(variable.nbytes for variable in expected.values())
    if size != expected_size:
        raise ToolboxError(f"{data_path}: {size} bytes, expected {expected_size} ({network})")
    entries = _read_index(index_path)
    for name in sorted({*expected, *entries}):
        if name not in expected or name not in entries:
            state = "lacks" if name in expected else "holds an unexpected"
            raise ToolboxError(f"{index_path}: {state} variable {name}; expected those of {network}")
        if entries[name].variable != expected[name]:
            raise ToolboxError(
                f"{index_path}: {name} is {entries[name].variable}, expected {expected[name]} ({network})"
            )
    data = _read(data_path)
    variables: dict[str, npt.NDArray[Any]] = {}
    for name, entry in entries.items():
        raw = data[entry.offset : entry.offset + entry.size]
        if len(raw) != entry.variable.nbytes:
            raise ToolboxError(f"{index_path}: {name} does not lie inside the data file ({network})")
        if masked_crc32c(raw) != entry.crc32c:
            raise ToolboxError(
                f"{data_path}: damaged, or not the file of {index_path.name}: the checksum of {name} differs"
            )
        array = np.frombuffer(raw, entry.variable.dtype).reshape(entry.variable.shape)
        if not np.isfinite(array).all():
            raise ToolboxError(f"{data_path}: {name} holds values that are not finite (NaN or infinity)")
        variables[name] = array
    return variables


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        raise ToolboxError(f"{path}: no such file") from None
    except OSError as error:
        raise ToolboxError(f"{path}: cannot be read ({error.strerror or error})") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ToolboxError(f"{path}: no such file") from None
    except OSError as error:
        raise ToolboxError(f"{path}: cannot be read ({error.strerror or error})") from None


# The index: https://github.com/google/leveldb/blob/main/doc/table_format.md, whose values are protocol buffers
# (BundleHeaderProto under the empty key, BundleEntryProto under every variable's name).

_TABLE_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48
_BLOCK_TRAILER = 5  # compression type and CRC-32C
_MAX_INDEX = 2**20  # bytes; those of RL-Restore have less than a thousand
_DTYPES: Mapping[int, str] = MappingProxyType({1: "<f4", 3: "<i4"})


@dataclass(frozen=True)
class _Entry:
    variable: Variable
    offset: int
    size: int
    crc32c: int


def _read_index(path: Path) -> dict[str, _Entry]:
    if _size(path) > _MAX_INDEX:
        raise ToolboxError(f"{path}: {_size(path)} bytes are too many for the index of a tensor bundle")
    table = _read(path)
    try:
        return _parse_index(table)
    except (ValueError, IndexError, TypeError, struct.error) as error:
        raise ToolboxError(f"{path}: damaged, or not the index of a tensor bundle ({error})") from None


def _parse_index(table: bytes) -> dict[str, _Entry]:
    if len(table) < _FOOTER or struct.unpack("<Q", table[-8:])[0] != _TABLE_MAGIC:
        raise ValueError("it does not end as such a table does")
    _, position = _handle(table, len(table) - _FOOTER)  # the meta index, which is empty
    (offset, size), _ = _handle(table, position)
    entries: dict[str, _Entry] = {}
    for _, handle in _block(table, offset, size):
        for key, value in _block(table, *_handle(handle, 0)[0]):
            if key:
                entries[key.decode()] = _entry(value)
            else:
                header = _fields(value)
                if header.get(1) != 1 or header.get(2, 0) != 0:
                    raise ValueError("only little-endian bundles of one shard can be read")
    return entries


def _entry(message: bytes) -> _Entry:
    fields = _fields(message)
    dtype, offset, size, checksum = (int(fields.get(field, 0)) for field in (1, 4, 5, 6))
    shape = tuple(int(_fields(dim).get(1, 0)) for field, dim in _messages(fields.get(2, b"")) if field == 2)
    if dtype not in _DTYPES:
        raise ValueError(f"a variable is neither float32 nor int32 but of type {dtype}")
    return _Entry(Variable(_DTYPES[dtype], shape), offset, size, checksum)


def _handle(data: bytes, position: int) -> tuple[tuple[int, int], int]:
    """A block's offset and size, and where the next thing begins."""
    offset, position = _varint(data, position)
    size, position = _varint(data, position)
    return (offset, size), position


def _block(table: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of a block; a key shares a prefix with the one before."""
    block = table[offset : offset + size]
    compression, checksum = struct.unpack("<BI", table[offset + size : offset + size + _BLOCK_TRAILER])
    if masked_crc32c(table[offset : offset + size + 1]) != checksum:
        raise ValueError("a checksum differs")
    if compression:
        raise ValueError("it is compressed")
    end = size - 4 - 4 * int(struct.unpack("<I", block[-4:])[0])
    position, key = 0, b""
    while position < end:
        shared, position = _varint(block, position)
        unshared, position = _varint(block, position)
        length, position = _varint(block, position)
        key = key[:shared] + block[position : position + unshared]
        position += unshared
        yield key, block[position : position + length]
        position += length


def _fields(message: bytes) -> dict[int, Any]:
    """A protocol buffer's fields by number; of a repeated one the last."""
    return dict(_messages(message))


def _messages(message: bytes) -> Iterator[tuple[int, Any]]:
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        field, wire = tag >> 3, tag & 7
        if wire == 0:
            number, position = _varint(message, position)
            yield field, number
        elif wire == 2:
            length, position = _varint(message, position)
            yield field, message[position : position + length]
            position += length
        elif wire == 5:
            yield field, struct.unpack_from("<I", message, position)[0]
            position += 4
        else:
            raise ValueError(f"a field has the unknown wire type {wire}")


def _varint(data: bytes, position: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")


def masked_crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli) in the masked form that LevelDB and TensorFlow store."""
    table = _crc_table()
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@cache
def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)
