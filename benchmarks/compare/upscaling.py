"""Policies of x4 episodes on patches, under the rules of whole-image restoration (:class:`agents.Restorer`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from restore_env.episodes.observation import observe
from restore_env.episodes.transition import StepRules
from restore_env.policy import Policy, ScoringPolicy
from restore_env.toolbox import Toolbox

MAX_TOOLS = 3
"""Tools at most, as in :class:`agents.Restorer`; a super-resolver after the policy's own tools is not counted."""


class ThenUpscale:
    """A policy of same-size tools, followed by a super-resolver when it stops or has used its steps.

    An episode has one step more than the policy uses.

    Args:
        policy: chooses among the same-size tools.
        toolbox: the policy's tools and, as the last tool, the super-resolver.
    """

    def __init__(self, policy: Policy, toolbox: Toolbox) -> None:
        self.policy, self._super_resolver = policy, len(toolbox) - 1
        self._rules = StepRules(Toolbox(toolbox.tools[:-1], toolbox.device), MAX_TOOLS)
        self.recipe = getattr(policy, "recipe", None)

    def predict(
        self,
        observation: Any,
        state: Any | None = None,
        episode_start: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = True,
    ) -> tuple[npt.NDArray[np.int64], Any]:
        """Choose an action for each observation; the state holds the policy's own and counts the steps."""
        mask, rules = np.asarray(observation["action_mask"]), self._rules
        own_stop, stop = rules.toolbox.stop, self._super_resolver + 1
        inner, steps = (None, np.zeros(len(mask), np.int64)) if state is None else state
        if episode_start is not None:
            steps = np.where(episode_start, 0, steps)
        last = np.asarray(observation["last_action"])
        own_mask = np.delete(mask, self._super_resolver, axis=1)
        own = observe(observation["image"], np.where(last < own_stop, last, rules.no_action), own_mask)
        chosen, inner = self.policy.predict(own, inner, episode_start, deterministic)
        done = (chosen == own_stop) | (steps >= rules.max_steps)
        actions = np.where(done, np.where(mask[:, self._super_resolver], self._super_resolver, stop), chosen)
        return actions, (inner, steps + 1)


class UpscalingRequired:
    """A policy with super-resolvers that must use one before its episode ends.

    At its last step, or where it would stop, it takes the super-resolver with the highest score.

    Args:
        policy: chooses among all of the toolbox.
        toolbox: with super-resolvers.
    """

    def __init__(self, policy: Policy, toolbox: Toolbox) -> None:
        if not isinstance(policy, ScoringPolicy):
            raise ValueError("a policy without scores cannot be made to upscale")
        self.policy: Policy = policy
        self._scores = policy.scores
        self.recipe = getattr(policy, "recipe", None)
        self._rules = StepRules(toolbox, MAX_TOOLS)

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
        chosen, rules = scores.argmax(axis=1), self._rules
        upscaling = rules.upscaling_mask(mask.astype(np.int8)).astype(bool)
        must = upscaling.any(axis=1) & rules.is_last(chosen, steps)
        chosen = np.where(must, np.where(upscaling, scores, -np.inf).argmax(axis=1), chosen)
        return np.where(steps >= rules.max_steps, rules.toolbox.stop, chosen), (inner, steps + 1)
