"""Policies of x4 episodes on patches, under the rules of whole-image restoration (:class:`agents.Restorer`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from restore_env.episodes.transition import StepRules
from restore_env.policy import Policy, ScoringPolicy
from restore_env.toolbox import Toolbox

MAX_TOOLS = 3
"""Tools at most, as in :class:`agents.Restorer`; a super-resolver after the policy's own tools is not counted."""


class _UpscalingPolicy(ABC):
    """Base class: a policy's choice, changed by the number of the step."""

    def __init__(self, policy: Policy, toolbox: Toolbox) -> None:
        self.policy, self.recipe = policy, getattr(policy, "recipe", None)
        self._rules = StepRules(toolbox, MAX_TOOLS)

    def predict(
        self,
        observation: Any,
        state: Any | None = None,
        episode_start: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = True,
    ) -> tuple[npt.NDArray[np.int64], Any]:
        """Choose an action for each observation; the state holds the policy's own and counts the steps."""
        inner, steps = (None, np.zeros(len(observation["action_mask"]), np.int64)) if state is None else state
        if episode_start is not None:
            steps = np.where(episode_start, 0, steps)
        actions, inner = self._choose(observation, inner, episode_start, steps)
        return actions, (inner, steps + 1)

    @abstractmethod
    def _choose(self, observation: Any, state: Any, episode_start: Any, steps: Any) -> tuple[Any, Any]: ...


class ThenUpscale(_UpscalingPolicy):
    """A policy of same-size tools, followed by a super-resolver when it stops or has used its steps.

    An episode has one step more than the policy uses.

    Args:
        policy: chooses among the same-size tools.
        toolbox: the policy's tools and, as the last tool, the super-resolver.
    """

    def __init__(self, policy: Policy, toolbox: Toolbox) -> None:
        super().__init__(policy, Toolbox(toolbox.tools[:-1], toolbox.device))

    def _choose(self, observation: Any, state: Any, episode_start: Any, steps: Any) -> tuple[Any, Any]:
        mask, rules = np.asarray(observation["action_mask"]), self._rules
        own_stop = super_resolver = rules.toolbox.stop  # the super-resolver stands where the policy's stop does
        last = np.asarray(observation["last_action"])
        own_mask = np.delete(mask, super_resolver, axis=1)
        last = np.where(last < own_stop, last, rules.no_action)
        own = {**observation, "last_action": last, "action_mask": own_mask}
        chosen, state = self.policy.predict(own, state, episode_start, deterministic=True)
        done = (chosen == own_stop) | (steps >= rules.max_steps)
        return np.where(done, np.where(mask[:, super_resolver], super_resolver, super_resolver + 1), chosen), state


class UpscalingRequired(_UpscalingPolicy):
    """A policy with super-resolvers that must use one before its episode ends.

    At its last step, or where it would stop, it takes the super-resolver with the highest score.

    Args:
        policy: chooses among all of the toolbox.
        toolbox: with super-resolvers.
    """

    def __init__(self, policy: Policy, toolbox: Toolbox) -> None:
        if not isinstance(policy, ScoringPolicy):
            raise ValueError("a policy without scores cannot be made to upscale")
        super().__init__(policy, toolbox)
        self._scores = policy.scores

    def _choose(self, observation: Any, state: Any, episode_start: Any, steps: Any) -> tuple[Any, Any]:
        mask, rules = np.asarray(observation["action_mask"], dtype=np.bool_), self._rules
        scores, state = self._scores(observation, state, episode_start)
        chosen = scores.argmax(axis=1)
        upscaling = rules.upscaling_mask(mask.astype(np.int8)).astype(bool)
        must = upscaling.any(axis=1) & rules.is_last(chosen, steps)
        chosen = np.where(must, np.where(upscaling, scores, -np.inf).argmax(axis=1), chosen)
        return np.where(steps >= rules.max_steps, rules.toolbox.stop, chosen), state
