"""The protocols of policies: ``predict`` as in Stable-Baselines3, and optional methods."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, cast, runtime_checkable

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from restore_env.episodes.batch import EpisodeBatch

Predict = TypeVar("Predict", bound=Callable[..., Any])


class Policy(Protocol):
    """Chooses actions, with the signature of Stable-Baselines3's ``predict``.

    A policy that needs certain keys of the observation names them as ``observation_keys``: evaluation then gives it
    these, whatever the environment observes.
    """

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


def takes_single(predict: Predict) -> Predict:
    """Let a ``predict`` for batches also take one observation and return one action, as Stable-Baselines3's does."""

    @wraps(predict)
    def predict_either(
        self: Any, observation: Any, state: Any = None, episode_start: Any = None, *rest: Any, **named: Any
    ) -> tuple[Any, Any]:
        if single := not np.ndim(observation["last_action"]):
            observation = {key: np.asarray(value)[None] for key, value in observation.items()}
            episode_start = None if episode_start is None else np.atleast_1d(episode_start)
        actions, state = predict(self, observation, state, episode_start, *rest, **named)
        return (actions[0] if single else actions), state

    return cast(Predict, predict_either)
