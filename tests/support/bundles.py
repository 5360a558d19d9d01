"""Tensor bundles like the published checkpoints of RL-Restore, with random weights."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tools_zoo.published.tensor_bundles import masked_crc32c

Bundle = Mapping[str, npt.NDArray[Any]]

THREE_LAYER = {"conv1": (9, 9, 3, 32), "conv2": (5, 5, 32, 16), "conv3": (5, 5, 16, 3)}
EIGHT_LAYER = {
    "conv1": (5, 5, 3, 64),
    "conv1_2": (1, 1, 64, 32),
    "conv2": (3, 3, 32, 32),
    "conv2_2": (1, 1, 32, 64),
    "conv2a": (3, 3, 32, 32),
    "conv2c": (3, 3, 32, 32),
    "conv2d": (3, 3, 32, 32),
    "conv3": (5, 5, 64, 3),
}
CELL = "prediction/prediction_rnn/basic_lstm_cell"


# A writer of bundles ------------------------------------------------------------------------------------------------


def varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def block(pairs: list[tuple[bytes, bytes]]) -> bytes:
    out, before = b"", b""
    for key, value in pairs:
        shared = next(
            (i for i, (a, b) in enumerate(zip(before, key, strict=False)) if a != b), min(len(before), len(key))
        )
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    return out + struct.pack("<II", 0, 1)


def table(pairs: list[tuple[bytes, bytes]], rows_per_block: int = 5) -> bytes:
    out, handles = b"", []

    def put(content: bytes) -> bytes:
        nonlocal out
        handle = varint(len(out)) + varint(len(content))
        out += content + b"\0" + struct.pack("<I", masked_crc32c(content + b"\0"))
        return handle

    for start in range(0, len(pairs), rows_per_block):
        rows = pairs[start : start + rows_per_block]
        handles.append((rows[-1][0] + b"~", put(block(rows))))
    meta = put(block([]))
    footer = meta + put(block(handles))
    return out + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def write_bundle(prefix: Path, variables: Bundle) -> None:
    data, pairs = b"", [(b"", field(1, 1) + field(3, field(1, 1)))]
    for name in sorted(variables):
        raw = variables[name].tobytes()
        shape = b"".join(field(2, field(1, size)) for size in variables[name].shape)
        entry = field(1, 3 if variables[name].dtype.kind == "i" else 1) + field(2, shape)
        entry += (field(4, len(data)) if data else b"") + field(5, len(raw))
        pairs.append((name.encode(), entry + varint(6 << 3 | 5) + struct.pack("<I", masked_crc32c(raw))))
        data += raw
    prefix.parent.mkdir(parents=True, exist_ok=True)
    prefix.with_name(f"{prefix.name}.data-00000-of-00001").write_bytes(data)
    prefix.with_name(f"{prefix.name}.index").write_bytes(table(pairs))


# What is written ----------------------------------------------------------------------------------------------------


def random_tool(network: str, rng: np.random.Generator) -> Bundle:
    layers = THREE_LAYER if network == "three_layer" else EIGHT_LAYER
    variables: dict[str, npt.NDArray[Any]] = {}
    for name, shape in layers.items():
        variables[f"{name}/weights"] = rng.normal(0, 0.05, shape).astype("<f4")
        variables[f"{name}/biases"] = rng.normal(0, 0.05, shape[-1]).astype("<f4")
    return variables


def random_agent(rng: np.random.Generator) -> Bundle:
    shapes: dict[str, tuple[int, ...]] = {
        "prediction/l1/w": (9, 9, 3, 32),
        "prediction/l1/biases": (32,),
        "prediction/l2/w": (5, 5, 32, 24),
        "prediction/l2/biases": (24,),
        "prediction/l3/w": (5, 5, 24, 24),
        "prediction/l3/biases": (24,),
        "prediction/l4/w": (5, 5, 24, 24),
        "prediction/l4/biases": (24,),
        "prediction/l7/Matrix": (384, 32),
        "prediction/l7/bias": (32,),
        f"{CELL}/kernel": (94, 200),
        f"{CELL}/bias": (200,),
        "prediction/q/Matrix": (50, 13),
        "prediction/q/bias": (13,),
    }
    variables: dict[str, npt.NDArray[Any]] = {
        name: rng.normal(0, 0.1, shape).astype("<f4") for name, shape in shapes.items()
    }
    return variables | {"step/step": np.array(2_000_000, "<i4")}
