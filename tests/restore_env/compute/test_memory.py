from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch

from restore_env.compute.memory import retained_memory

BLOCK = 48 * 2**20
STATM = Path("/proc/self/statm")


def faults(times: int = 6) -> int:
    """Pages that the kernel hands out while a large tensor is made repeatedly, after a warm-up."""
    for _ in range(24):
        torch.ones(BLOCK, dtype=torch.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(BLOCK, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    """Bytes of the process that are in memory."""
    return int(STATM.read_text().split()[1]) * resource.getpagesize()


@pytest.fixture(scope="module")
def default() -> int:
    """Faults where nothing is retained."""
    if not STATM.exists():
        pytest.skip("/proc/self/statm, which states the memory of the process, exists on Linux only")
    count = faults()
    if count < 20:
        pytest.skip("this system's C library retains large blocks by itself")
    return count


def test_memory_is_retained_until_the_context_ends_even_by_an_error(default: int) -> None:
    held = 0

    def fail() -> None:
        nonlocal held
        assert faults() < default / 4
        held = resident()
        raise RuntimeError

    with pytest.raises(RuntimeError), retained_memory():
        fail()
    assert resident() < held - BLOCK / 2


def test_an_inner_context_does_not_end_the_outer_one(default: int) -> None:
    with retained_memory():
        with retained_memory():
            faults(1)
        assert faults() < default / 4
