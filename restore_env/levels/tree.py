"""The tree of all chains of tools up to a depth, as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class ChainTree:
    """All chains of at most ``depth`` tools, numbered by length, then in order: 0 is the empty chain.

    The chain with tool ``a`` added to chain ``i`` has the number ``i * n_tools + 1 + a``.
    """

    n_tools: int
    depth: int

    @property
    def size(self) -> int:
        """Number of chains."""
        return sum(self.n_tools**length for length in range(self.depth + 1))

    @property
    def inner(self) -> int:
        """Number of chains that can be extended: those shorter than ``depth``."""
        return sum(self.n_tools**length for length in range(self.depth))

    @cached_property
    def chains(self) -> list[tuple[int, ...]]:
        """Every chain, by its number."""
        return [chain for length in range(self.depth + 1) for chain in product(range(self.n_tools), repeat=length)]

    @cached_property
    def parents(self) -> npt.NDArray[np.int64]:
        """The number of each chain without its last tool, ``(size,)``; 0 for the empty chain."""
        return np.maximum(np.arange(self.size) - 1, 0) // self.n_tools

    @cached_property
    def tools(self) -> npt.NDArray[np.int64]:
        """The last tool of each chain, ``(size,)``; meaningless for the empty chain."""
        return (np.arange(self.size) - 1) % self.n_tools

    def number(self, chain: Sequence[int]) -> int:
        """The number of a chain."""
        number = 0
        for tool in chain:
            number = number * self.n_tools + 1 + tool
        return number

    def upscaling(self, scales: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """How many times larger images are after each chain of tools with these ``scales``: ``(size,)``."""
        grown = np.ones(self.size, dtype=np.int64)
        for node in range(1, self.size):
            grown[node] = grown[self.parents[node]] * scales[self.tools[node]]
        return grown

    def gmacs(
        self, pixels: int, scales: npt.NDArray[np.int64], macs_per_pixel: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        """Computation of each chain on an image of ``pixels`` pixels: ``(size,)``."""
        grown = self.upscaling(scales)
        spent = np.zeros(self.size)
        for node in range(1, self.size):
            before = self.parents[node]
            spent[node] = spent[before] + macs_per_pixel[self.tools[node]] * pixels * grown[before] ** 2 / 1e9
        return spent

    def constant(self, scales: npt.NDArray[np.int64], upscale: int) -> npt.NDArray[np.int64]:
        """What becomes of each chain where a tool that would exceed the target changes nothing: ``(size,)``."""
        grown = self.upscaling(scales)
        after = np.zeros(self.size, dtype=np.int64)
        for node in range(1, self.size):
            before, tool = after[self.parents[node]], self.tools[node]
            allowed = upscale % (grown[before] * scales[tool]) == 0
            after[node] = before * self.n_tools + 1 + tool if allowed else before
        return after
