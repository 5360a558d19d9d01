"""A policy that knows no super-resolver, and one that enlarges what it leaves: as an episode's policy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from restore_env.policy import Policy

MAX_TOOLS = 3
"""Tools before the super-resolver, as :class:`agents.Restorer` allows them."""


class Enlarging:
    """Plays a policy of same-size tools; where it stops, or has taken its tools, the super-resolver acts, then stop.

    The toolbox is that of the policy and, as its last tool, the super-resolver; an episode needs one step more.

    Args:
        policy: chooses among the same-size tools.
        tools: how many of them there are.
    """

    def __init__(self, policy: Policy, tools: int) -> None:
        self.policy, self.tools = policy, tools
        self.recipe = getattr(policy, "recipe", None)

    def predict(
        self,
        observation: Any,
        state: Any | None = None,
        episode_start: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = True,
    ) -> tuple[npt.NDArray[np.int64], Any]:
        """Choose an action for each observation; the state holds the policy's own and counts the steps."""
        last = np.asarray(observation["last_action"])
        mask = np.asarray(observation["action_mask"])
        super_resolver, stop = self.tools, self.tools + 1
        inner, steps = (None, np.zeros(len(last), np.int64)) if state is None else state
        if episode_start is not None:
            steps = np.where(episode_start, 0, steps)
        seen = {
            "image": observation["image"],
            "last_action": np.where(last < self.tools, last, self.tools + 1),
            "action_mask": np.concatenate([mask[:, : self.tools], mask[:, stop:]], axis=1),
        }
        chosen, inner = self.policy.predict(seen, inner, episode_start, deterministic)
        done = (chosen == self.tools) | (steps >= MAX_TOOLS)
        actions = np.where(done, np.where(mask[:, super_resolver], super_resolver, stop), chosen)
        return actions, (inner, steps + 1)
