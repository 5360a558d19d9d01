"""The protocols of policies: ``predict`` as in Stable-Baselines3, and optional methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from restore_env.episodes.batch import EpisodeBatch


class Policy(Protocol):
    """Chooses actions, with the signature of Stable-Baselines3's ``predict``."""

    def predict(
        self,
        observation: Any,
        state: Any | None = None,
        episode_start: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[npt.NDArray[np.int64], Any | None]:
        """Choose an action for each observation of a batch; return the actions and the state for the next call."""


@runtime_checkable
class PrivilegedPolicy(Protocol):
    """A policy that uses the episodes' hidden state, such as an oracle that compares with the target."""

    def bind(self, episodes: EpisodeBatch) -> None:
        """Set the episodes to play; row ``i`` of an observation is slot ``i``."""


@runtime_checkable
class ScoringPolicy(Protocol):
    """A policy that scores every action; its deterministic ``predict`` takes the highest score."""

    kind: Literal["logits", "q"]
    """The meaning of the scores."""

    def scores(
        self, observation: Any, state: Any | None = None, episode_start: npt.NDArray[np.bool_] | None = None
    ) -> tuple[npt.NDArray[np.float32], Any]:
        """Scores ``(N, n_actions)``, minus infinity for masked actions, and the state for the next call."""
