"""Policies of patches that are to be enlarged, held to what :class:`agents.Restorer` holds them to."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from restore_env.policy import Policy, ScoringPolicy
from restore_env.toolbox import Toolbox

MAX_TOOLS = 3
"""Tools that a policy may take, as :class:`agents.Restorer` allows them; a super-resolver that it does not know comes
after them."""


class Upscaling:
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


class Insisting:
    """Plays a policy that knows super-resolvers, three tools at most; where an image is yet to be enlarged it must be.

    At its last tool, or where it would stop, the policy takes the super-resolver that it thinks most of.

    Args:
        policy: chooses among all of the toolbox.
        toolbox: with super-resolvers.
    """

    def __init__(self, policy: Policy, toolbox: Toolbox) -> None:
        if not isinstance(policy, ScoringPolicy):
            raise ValueError("a policy without scores cannot be held to upscaling")
        self.policy: Policy = policy
        self._scores = policy.scores
        self.recipe = getattr(policy, "recipe", None)
        self._enlarges = np.append(toolbox.scales > 1, False)

    def predict(
        self,
        observation: Any,
        state: Any | None = None,
        episode_start: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = True,
    ) -> tuple[npt.NDArray[np.int64], Any]:
        """Choose an action for each observation; the state holds the policy's own and counts the steps."""
        mask = np.asarray(observation["action_mask"], dtype=np.bool_)
        inner, steps = (None, np.zeros(len(mask), np.int64)) if state is None else state
        if episode_start is not None:
            steps = np.where(episode_start, 0, steps)
        scores, inner = self._scores(observation, inner, episode_start)
        chosen, stop = scores.argmax(axis=1), len(self._enlarges) - 1
        upscaling = mask & self._enlarges
        must = upscaling.any(axis=1) & ((chosen == stop) | (steps >= MAX_TOOLS - 1))
        chosen = np.where(must, np.where(upscaling, scores, -np.inf).argmax(axis=1), chosen)
        return np.where(steps >= MAX_TOOLS, stop, chosen), (inner, steps + 1)
