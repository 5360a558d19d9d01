"""What a policy is: anything with the ``predict`` of Stable-Baselines3."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


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
