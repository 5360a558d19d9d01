"""The rules of a step: which actions are allowed, their cost and reward, and when an episode ends.

The environments, whole-image restoration, joint training and the benchmarks use these rules;
:meth:`restore_env.toolbox.Toolbox.run` applies a tool to images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from restore_env.toolbox import Toolbox

Actions = npt.NDArray[np.int64]
Mask = npt.NDArray[np.int8]


@dataclass(frozen=True)
class StepRules:
    """The rules of a step with a toolbox. All methods take batches of episodes."""

    toolbox: Toolbox
    max_steps: int
    """Maximal number of tools in an episode."""
    cost_weight: float = 0.0
    """Price of computation, in reward per GMAC."""
    stop_if_worse: bool = False
    """End an episode when its PSNR falls below the PSNR at its start."""

    @property
    def n_actions(self) -> int:
        """Tools and ``stop``, which is the last action."""
        return len(self.toolbox) + 1

    @property
    def no_action(self) -> int:
        """The value of ``last_action`` before the first action: the number after ``stop``."""
        return self.n_actions

    def action_mask(self, remaining: int | npt.NDArray[np.int64]) -> Mask:
        """1 where an action is allowed on images that are ``remaining`` times smaller than their targets.

        A super-resolver is allowed if its result does not exceed the target.

        Args:
            remaining: any shape, ``(...)``.

        Returns:
            ``(..., n_actions)``.
        """
        remaining = np.asarray(remaining)
        mask = np.ones((*remaining.shape, self.n_actions), dtype=np.int8)
        mask[..., :-1] = remaining[..., None] % self.toolbox.scales == 0
        return mask

    def upscaling_mask(self, mask: Mask) -> Mask:
        """``mask`` with nothing but super-resolvers allowed: ``(..., n_actions)``."""
        return np.asarray(mask * np.append(self.toolbox.scales > 1, False), dtype=np.int8)

    def remaining_after(self, remaining: npt.NDArray[np.int64], actions: Actions) -> npt.NDArray[np.int64]:
        """How many times smaller than their targets images are after allowed tools ``(N,)``."""
        return np.asarray(remaining // self.toolbox.scales[actions])

    def checked(self, actions: npt.NDArray[np.int64], count: int) -> Actions:
        """Return ``count`` actions as an array ``(count,)``.

        Raises:
            ValueError: another number of actions, or a value that is not an action of the toolbox.
        """
        actions = np.asarray(actions)
        whole = np.issubdtype(actions.dtype, np.integer)
        if not whole or actions.shape != (count,) or not ((actions >= 0) & (actions < self.n_actions)).all():
            raise ValueError(
                f"expected {count} whole numbers in 0..{self.n_actions - 1} as actions, got {actions.tolist()}"
            )
        return actions.astype(np.int64)

    def is_last(self, actions: Actions, steps: int | npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Whether actions ``(N,)`` after ``steps`` earlier ones end their episodes: ``stop``, or the last step."""
        return np.asarray((actions == self.toolbox.stop) | (np.asarray(steps) + 1 >= self.max_steps))

    def cost(self, actions: Actions, pixels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """GMACs of tools ``(N,)`` on images with ``pixels`` pixels ``(N,)``."""
        return np.asarray(self.toolbox.macs_per_pixel[actions] * pixels / 1e9)

    def reward(
        self, before: npt.NDArray[np.float64], after: npt.NDArray[np.float64], gmacs: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        """Quality gained, minus the price of the computation: ``(N,)``."""
        return np.asarray(after - before - self.cost_weight * gmacs)

    def has_failed(
        self, psnrs: npt.NDArray[np.float64], initial_psnrs: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.bool_]:
        """Whether ``stop_if_worse`` ends episodes: their PSNR is below the PSNR at their start."""
        return np.asarray(self.stop_if_worse & (psnrs < initial_psnrs))
