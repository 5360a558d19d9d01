"""TensorFlow 1 tensor bundles, read without TensorFlow and checked in full.

A bundle is two files. ``NAME.data-00000-of-00001`` holds the variables one after the other, little-endian, convolution
kernels as height, width, input, output. ``NAME.index`` is a sorted table (LevelDB's format) that gives every variable's
type, shape, place and CRC-32C.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tools_zoo.toolboxes import ToolboxError

Variable = np.dtype[Any]
"""Type and shape of one variable of a bundle, as a NumPy type with a shape (:func:`variable`)."""


def variable(dtype: str, shape: tuple[int, ...]) -> Variable:
    """A variable of type "<f4" or "<i4" and a shape."""
    return np.dtype((dtype, shape))


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
    data, expected_size = _read(data_path), sum(each.itemsize for each in expected.values())
    if len(data) != expected_size:
        raise ToolboxError(f"{data_path}: {len(data)} bytes, expected {expected_size} ({network})")
    table = _read(index_path)
    try:
        entries = _parse_index(table)
    except (ValueError, IndexError, TypeError, OverflowError, struct.error) as error:
        raise ToolboxError(f"{index_path}: damaged, or not the index of a tensor bundle ({error})") from None
    for name in sorted({*expected, *entries}):
        if name not in expected or name not in entries:
            state = "lacks" if name in expected else "holds an unexpected"
            raise ToolboxError(f"{index_path}: {state} variable {name}; expected those of {network}")
        if entries[name].variable != expected[name]:
            found, wanted = (f"{each.base.name} {each.shape}" for each in (entries[name].variable, expected[name]))
            raise ToolboxError(f"{index_path}: {name} is {found}, expected {wanted} ({network})")
    variables: dict[str, npt.NDArray[Any]] = {}
    for name, entry in entries.items():
        raw = data[entry.offset : entry.offset + entry.size]
        if len(raw) != entry.variable.itemsize:
            raise ToolboxError(f"{index_path}: {name} does not lie inside the data file ({network})")
        if masked_crc32c(raw) != entry.crc32c:
            raise ToolboxError(
                f"{data_path}: damaged, or not the file of {index_path.name}: the checksum of {name} differs"
            )
        array = np.frombuffer(raw, entry.variable.base).reshape(entry.variable.shape)
        if not np.isfinite(array).all():
            raise ToolboxError(f"{data_path}: {name} holds values that are not finite (NaN or infinity)")
        variables[name] = array
    return variables


def _byte_remainders() -> tuple[int, ...]:
    """The remainder of each byte by CRC-32C's polynomial, 0x82F63B78 with its bits reversed."""
    remainders = tuple(range(256))
    for _ in range(8):
        remainders = tuple((rest >> 1) ^ (0x82F63B78 * (rest & 1)) for rest in remainders)
    return remainders


_REMAINDERS = _byte_remainders()


def masked_crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli) in the masked form that LevelDB and TensorFlow store."""
    rest = 0xFFFFFFFF
    for byte in data:
        rest = _REMAINDERS[(rest ^ byte) & 0xFF] ^ (rest >> 8)
    rest ^= 0xFFFFFFFF
    return (((rest >> 15) | (rest << 17)) + 0xA282EAD8) & 0xFFFFFFFF


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
_DTYPES: Mapping[int, str] = MappingProxyType({1: "<f4", 3: "<i4"})


class _BundleEntry(NamedTuple):
    variable: Variable
    offset: int
    size: int
    crc32c: int


def _parse_index(table: bytes) -> dict[str, _BundleEntry]:
    if len(table) < _FOOTER or struct.unpack("<Q", table[-8:])[0] != _TABLE_MAGIC:
        raise ValueError("it does not end as such a table does")
    _, position = _handle(table, len(table) - _FOOTER)  # the meta index, which is empty
    (offset, size), _ = _handle(table, position)
    entries: dict[str, _BundleEntry] = {}
    for _, handle in _block(table, offset, size):
        for key, value in _block(table, *_handle(handle, 0)[0]):
            fields = dict(_fields(value))
            if key:
                entries[key.decode()] = _entry(fields)
            elif fields.get(1) != 1 or fields.get(2, 0) != 0:
                raise ValueError("only little-endian bundles of one shard can be read")
    return entries


def _entry(fields: Mapping[int, Any]) -> _BundleEntry:
    dtype, offset, size, checksum = (int(fields.get(field, 0)) for field in (1, 4, 5, 6))
    shape = tuple(int(dict(_fields(dim)).get(1, 0)) for field, dim in _fields(fields.get(2, b"")) if field == 2)
    if dtype not in _DTYPES:
        raise ValueError(f"a variable is neither float32 nor int32 but of type {dtype}")
    return _BundleEntry(variable(_DTYPES[dtype], shape), offset, size, checksum)


def _handle(data: bytes, position: int) -> tuple[tuple[int, int], int]:
    """A block's offset and size, and the position after it."""
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


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a protocol buffer: number and value."""
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
