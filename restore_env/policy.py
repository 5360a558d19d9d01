"""What a policy is: anything with the ``predict`` of Stable-Baselines3; and what some can do besides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from restore_env.episodes.batch import EpisodeBatch


class Policy(Protocol):
    """Anything that chooses actions with the signature of Stable-Baselines3's ``predict``."""

    def predict(
        self,
        observation: Any,
        state: Any | None = None,
        episode_start: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[npt.NDArray[np.int64], Any | None]:
        """Choose an action for each observation of a batch, and return the state to be passed on."""


@runtime_checkable
class PrivilegedPolicy(Protocol):
    """A policy that sees more of the episodes than their observations, such as an oracle."""

    def bind(self, episodes: EpisodeBatch) -> None:
        """Play these episodes from now on; their slots are the rows of the observations."""


@runtime_checkable
class ScoringPolicy(Protocol):
    """A policy that says what it thinks of every action; its deterministic ``predict`` takes the highest score."""

    kind: Literal["logits", "q"]
    """What the scores are."""

    def scores(
        self, observation: Any, state: Any | None = None, episode_start: npt.NDArray[np.bool_] | None = None
    ) -> tuple[npt.NDArray[np.float32], Any]:
        """Scores ``(N, n_actions)``, minus infinity where the mask forbids an action, and the next state."""
