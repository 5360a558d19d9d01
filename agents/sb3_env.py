"""The vector environment as a ``VecEnv`` of Stable-Baselines3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices, VecEnvObs, VecEnvStepReturn

from restore_env.vector_env import ImageRestoreVectorEnv, Infos


class RestoreVecEnv(VecEnv):
    """``ImageRestoreVectorEnv`` for Stable-Baselines3.

    Equal to ``DummyVecEnv`` of the single environment. Wrap it in ``VecMonitor`` for episode statistics.

    Args:
        num_envs: number of environments.
        arguments: those of :class:`restore_env.ImageRestoreVectorEnv`, but for ``autoreset_mode``.
    """

    def __init__(self, num_envs: int, **arguments: Any) -> None:
        self.vector_env = ImageRestoreVectorEnv(num_envs, autoreset_mode=AutoresetMode.SAME_STEP, **arguments)
        self.render_mode = self.vector_env.render_mode
        self._actions: npt.NDArray[np.int64] = np.zeros(num_envs, dtype=np.int64)
        super().__init__(num_envs, self.vector_env.single_observation_space, self.vector_env.single_action_space)
        self.metadata = self.vector_env.metadata

    def reset(self) -> VecEnvObs:
        """Start an episode in every environment, with the seeds and options that were set for it."""
        keys = {key for own in self._options for key in own}
        if any(own.keys() != keys for own in self._options):
            raise ValueError("the environments' reset options must have the same keys")
        options = {key: [own[key] for own in self._options] for key in keys}
        observations: VecEnvObs
        observations, infos = self.vector_env.reset(seed=self._seeds, options=options or None)
        self.reset_infos = _info_rows(infos, self.num_envs)
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        """Take the actions."""
        self._actions = np.asarray(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """Step, and reset where an episode is over; its last observation is ``terminal_observation`` in the info."""
        observations, rewards, terminated, truncated, infos = self.vector_env.step(self._actions)
        begun, last = (_info_rows(part, self.num_envs) for part in (infos, infos.get("final_info", {})))
        over = terminated | truncated
        listed = [old if ended else new for old, new, ended in zip(last, begun, over.tolist(), strict=True)]
        for info, cut in zip(listed, (truncated & ~terminated).tolist(), strict=True):
            info["TimeLimit.truncated"] = cut
        for slot in np.flatnonzero(over).tolist():
            listed[slot]["terminal_observation"] = infos["final_obs"][slot]
            self.reset_infos[slot] = begun[slot]
        return observations, rewards.astype(np.float32), over, listed

    def close(self) -> None:
        """Close the environments."""
        self.vector_env.close()

    def get_images(self) -> Sequence[npt.NDArray[np.uint8] | None]:
        """A picture of each environment."""
        return self.vector_env.render() or [None] * self.num_envs

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of the vector environment, once per index."""
        value = getattr(self.vector_env, attr_name)
        return [value] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the vector environment; it is one for all indices."""
        setattr(self.vector_env, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> Any:
        """Call a method that returns an entry per environment, such as ``action_masks``."""
        results = getattr(self.vector_env, method_name)(*method_args, **method_kwargs)
        return [results[index] for index in self._get_indices(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """No environment is wrapped."""
        return [False] * len(list(self._get_indices(indices)))


def _info_rows(infos: Infos, count: int) -> list[dict[str, Any]]:
    """Each environment's info out of the batched ones."""
    rows: list[dict[str, Any]] = [{} for _ in range(count)]
    for key, values in infos.items():
        present = infos.get(f"_{key}")
        if present is None or key in ("final_obs", "final_info"):
            continue
        column = _info_rows(values, count) if isinstance(values, dict) else values
        for row, value, here in zip(rows, column, present.tolist(), strict=True):
            if here:
                row[key] = value
    return rows
