from __future__ import annotations

import resource

import pytest
import torch

from restore_env.allocation import kept_memory

BLOCK = 48 * 2**20


def faults(times: int = 6) -> int:
    """Pages that the kernel hands out while a large tensor is made again and again."""
    torch.ones(BLOCK, dtype=torch.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(BLOCK, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_freed_memory_is_kept_inside_and_given_back_after() -> None:
    pytest.importorskip("ctypes").CDLL(None)
    usual = faults()
    if usual < 20:
        pytest.skip("this system's C library keeps large blocks by itself")
    with kept_memory():
        kept = faults()
    assert kept < usual / 4
    assert faults() > usual / 2


def test_it_ends_with_an_error_inside_too() -> None:
    usual = faults()
    with pytest.raises(RuntimeError, match="inside"), kept_memory():
        raise RuntimeError("inside")
    assert faults() >= usual / 2
