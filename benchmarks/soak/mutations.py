"""Mutations of files, each a function of a random generator: of bytes, and of the values of JSON."""

from __future__ import annotations

import copy
import json
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Mutation = Callable[[bytes, np.random.Generator], bytes]

_NUMBERS = (0, 1, 2, 127, 128, 255, 2**15 - 1, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
_ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 3, 2**31, 2**63, 10**40, 0.5, -1.5, 1e308, float("nan"), float("inf")),
    *("", "x", "os:abort", "antigravity:x", "../../x", "/etc/passwd", "a\nb", "\x1b[31m", "\0", "x" * 5000, "\udcff"),
    *([], {}, [[]], [None], {"a": {}}, [1, "x"], list(range(50))),
)


def _odd_value(rng: np.random.Generator) -> Any:
    return copy.deepcopy(_ODD[int(rng.integers(len(_ODD)))])


def bytes_set(data: bytes, rng: np.random.Generator) -> bytes:
    """Set a few bytes, more of them near the start, where headers are."""
    altered = bytearray(data)
    end = len(data) if rng.random() < 0.4 else min(len(data), 256)
    for at in rng.integers(0, max(1, end), rng.integers(1, 6)):
        if len(altered):
            altered[at] = rng.integers(256)
    return bytes(altered)


def bit_flipped(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip one bit."""
    if not data:
        return data
    altered = bytearray(data)
    altered[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    return bytes(altered)


def number_set(data: bytes, rng: np.random.Generator) -> bytes:
    """Write a number at a limit of its type somewhere, in either byte order."""
    form = str(rng.choice(["<H", ">H", "<I", ">I"]))
    size = struct.calcsize(form)
    if len(data) <= size:
        return data
    end = len(data) - size if rng.random() < 0.3 else min(len(data) - size, 512)
    at, number = int(rng.integers(end + 1)), int(rng.choice(_NUMBERS)) % 256**size
    return data[:at] + struct.pack(form, number) + data[at + size :]


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    """Cut the end off."""
    return data[: int(rng.integers(len(data) + 1))]


def part_removed(data: bytes, rng: np.random.Generator) -> bytes:
    """Remove a part."""
    first, last = sorted(rng.integers(0, len(data) + 1, 2).tolist())
    return data[:first] + data[min(last, first + 64) :]


def part_repeated(data: bytes, rng: np.random.Generator) -> bytes:
    """Repeat a part."""
    first, last = sorted(rng.integers(0, len(data) + 1, 2).tolist())
    return data[:last] + data[max(first, last - 256) : last] * int(rng.integers(1, 4)) + data[last:]


def random_bytes_inserted(data: bytes, rng: np.random.Generator) -> bytes:
    """Insert random bytes."""
    at = int(rng.integers(len(data) + 1))
    return data[:at] + rng.bytes(int(rng.integers(1, 32))) + data[at:]


def values_changed(data: bytes, rng: np.random.Generator) -> bytes:
    """Change, remove, add or nest values of JSON; bytes that are none are returned as they are."""
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        return data
    for _ in range(rng.integers(1, 4)):
        values = _changed(values, rng)
    if rng.random() < 0.05:
        return b"[" * 3000 + json.dumps(values).encode() + b"]" * 3000
    return json.dumps(values).encode()


def _changed(values: Any, rng: np.random.Generator) -> Any:
    if not isinstance(values, (dict, list)) or not values or rng.random() < 0.1:
        return _odd_value(rng)
    keys: Sequence[Any] = list(values) if isinstance(values, dict) else range(len(values))
    key = keys[int(rng.integers(len(keys)))]
    chance = rng.random()
    if chance < 0.15:
        del values[key]
    elif chance < 0.25 and isinstance(values, dict):
        values[str(_odd_value(rng))] = values[key]
    elif chance < 0.3 and isinstance(values, list):
        values.extend(values[:50])
    else:
        values[key] = _changed(values[key], rng)
    return values


def header_changed(data: bytes, rng: np.random.Generator) -> bytes:
    """Change values in the JSON header of a safetensors file, or in the JSON that its metadata hold as text."""
    length = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError):
        return data
    if not isinstance(header, dict) or not isinstance(header.get("__metadata__", {}), dict):
        return data
    metadata = header.get("__metadata__", {})
    name = str(rng.choice(list(metadata))) if metadata else ""
    if name and rng.random() < 0.7:
        if rng.random() < 0.3:
            metadata[name] = str(_odd_value(rng))
        else:
            changed = values_changed(str(metadata[name]).encode(errors="replace"), rng)
            metadata[name] = changed.decode("utf-8", "replace")
    else:
        header = _changed(header, rng)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


OF_BYTES: tuple[Mutation, ...] = (
    *(bytes_set, bit_flipped, number_set, cut, part_removed, part_repeated, random_bytes_inserted),
)
OF_JSON: tuple[Mutation, ...] = (values_changed, values_changed, values_changed, *OF_BYTES)
OF_SAFETENSORS: tuple[Mutation, ...] = (header_changed, header_changed, header_changed, *OF_BYTES)


def mutated(data: bytes, mutations: Sequence[Mutation], rng: np.random.Generator) -> bytes:
    """One or a few of the mutations, one after the other."""
    for _ in range(1 if rng.random() < 0.7 else 3):
        data = mutations[int(rng.integers(len(mutations)))](data, rng)
    return data
