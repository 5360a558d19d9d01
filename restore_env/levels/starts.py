"""Starts of episodes from a level set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from restore_env.levels.store import LevelError, LevelSet
from restore_env.sampling import EpisodeStart

_NO_PIXELS = np.zeros((0, 0, 3), dtype=np.uint8)


class LevelStarts:
    """Turns seeds into the levels of a set: a level's own seed into that level, any other into one of them.

    Args:
        levels: the set.
    """

    def __init__(self, levels: LevelSet) -> None:
        self.levels = levels
        names, arrays = levels.manifest.photographs, levels.arrays
        rows = zip(
            *(arrays[name].tolist() for name in ("seed", "photograph", "upscale")), range(len(levels)), strict=True
        )
        self._starts = [
            EpisodeStart(
                _NO_PIXELS, _NO_PIXELS, upscale, names[photograph], seed, levels.distortion(level), photograph, level
            )
            for seed, photograph, upscale, level in rows
        ]

    @property
    def factors(self) -> tuple[int, ...]:
        """The upscale factors that can come up."""
        return tuple(self.levels.manifest.upscale)

    def starts(self, chosen: Sequence[int | EpisodeStart]) -> Iterator[EpisodeStart]:
        """The starts of many seeds.

        Raises:
            LevelError: a pair of the user's own.
        """
        return iter([self.draw(seed) for seed in chosen])

    def draw(self, seed: int | EpisodeStart) -> EpisodeStart:
        """The start of a seed.

        Raises:
            LevelError: a pair of the user's own.
        """
        if isinstance(seed, EpisodeStart):
            if seed.level < 0:
                raise LevelError("a level set has its own images: make an environment without levels for a pair")
            return seed
        level = self.levels.by_seed.get(seed)
        return self._starts[seed % len(self._starts) if level is None else level]
