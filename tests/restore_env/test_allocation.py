from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch

from restore_env.compute.memory import retained_memory

BLOCK = 48 * 2**20
STATM = Path("/proc/self/statm")


def faults(times: int = 6) -> int:
    """Pages that the kernel hands out while a large tensor is made again and again, once that has become usual."""
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
def usual() -> int:
    """Faults where nothing is kept."""
    if not STATM.exists():
        pytest.skip("/proc/self/statm, which tells how much memory is held, is Linux's")
    count = faults()
    if count < 20:
        pytest.skip("this system's C library keeps large blocks by itself")
    return count


def test_freed_memory_is_kept_inside_and_given_back_after(usual: int) -> None:
    with retained_memory():
        kept, held = faults(), resident()
    assert kept < usual / 4
    assert resident() < held - BLOCK / 2


def test_the_last_of_several_gives_it_back(usual: int) -> None:
    with retained_memory():
        with retained_memory():
            faults()
            held = resident()
        assert resident() > held - BLOCK / 2
        assert faults() < usual / 4
    assert resident() < held - BLOCK / 2


def test_it_ends_with_an_error_inside_too(usual: int) -> None:
    def fail() -> None:
        faults()
        raise RuntimeError(str(resident()))

    with pytest.raises(RuntimeError) as error, retained_memory():
        fail()
    assert resident() < int(str(error.value)) - BLOCK / 2
