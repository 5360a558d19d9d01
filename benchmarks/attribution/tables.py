"""One policy's results on patches as a line of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agents.evaluation import score_between
from agents.intervals import Estimate, estimate
from agents.rollout import EpisodeResults
from benchmarks.attribution.choice import Chain, Choice, without_stop
from restore_env import Toolbox

CLEARLY_DB = 0.5
"""A patch is made clearly worse if it loses more PSNR than this."""
HEADS = ("share of choosing", f"worse by > {CLEARLY_DB} dB", "tools", "ms a patch")


@dataclass(frozen=True)
class Line:
    """One policy in a table."""

    name: str
    gain: Estimate
    """Mean return: gain in dB, or in the reward's metric."""
    share: Estimate | None
    """Of what choosing is worth: 0 is the constant chain, 1 the best chain of each patch; None if it is nothing."""
    worse: float
    """Share of patches that lose more than :data:`CLEARLY_DB` of PSNR."""
    tools: float
    """Mean number of tools called."""
    milliseconds: float
    """Wall time for a patch: of choosing, of the tools and of measuring."""

    @classmethod
    def of(cls, name: str, played: EpisodeResults, choice: Choice, stop: int) -> Line:
        """The line of a policy's results."""
        share = score_between(played.returns, choice.constant_returns, choice.best_returns, played.images)
        return cls(
            name=name,
            gain=estimate((played.returns, played.images)),
            share=None if np.isnan(share.mean) else share,
            worse=float(np.mean(played.psnr - played.initial_psnr < -CLEARLY_DB)),
            tools=float(np.mean([len(without_stop(chain, stop)) for chain in played.actions])),
            milliseconds=1000 * played.seconds / len(played.returns),
        )

    def cells(self, digits: int = 2) -> list[str]:
        """The cells after the name, under the gain and :data:`HEADS`."""
        share = "" if self.share is None else ranged(self.share, ".0%")
        numbers = (f"{self.worse:.1%}", f"{self.tools:.2f}", f"{self.milliseconds:.1f}")
        return [ranged(self.gain, f"+.{digits}f"), share, *numbers]


def ranged(value: Estimate, form: str) -> str:
    """An estimate with its interval."""
    return f"{value.mean:{form}} [{value.low:{form}}, {value.high:{form}}]"


def named(chain: Sequence[int], toolbox: Toolbox) -> str:
    """A chain in words."""
    return ", ".join(toolbox.name(action) for action in chain) or "no tool"


def frequency(tool: int, chains: Sequence[Chain]) -> float:
    """Share of chains that have a tool."""
    return float(np.mean([tool in chain for chain in chains]))
