"""What a training of an agent holds beside its networks, as plain values and tensors for a checkpoint.

Episodes, random generators, recurrent states and replayed episodes: with them a run that was killed goes on as if it
had not been.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecMonitor, unwrap_vec_wrapper

from agents.drqn.drqn import DRQN
from agents.drqn.replay_files import ReplayFiles
from agents.sb3_env import RestoreVecEnv

_COUNTS = ("num_timesteps", "_n_updates", "_episode_num", "exploration_rate")
_REPLAY = "replay"
"""Folder of replayed episodes, beside the checkpoint."""


class Resumption:
    """The state of a run between two of its rollouts.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._replay = ReplayFiles(folder / _REPLAY)

    def save(self, model: BaseAlgorithm) -> dict[str, Any] | None:
        """The state of a model whose environments are running; None before they are."""
        if model._last_obs is None:
            return None
        monitor, environment = _environments(model)
        assert isinstance(model._last_obs, dict)
        assert model._last_episode_starts is not None
        state: dict[str, Any] = {
            "environment": environment.vector_env.plain_state(),
            "returns": torch.from_numpy(monitor.episode_returns.copy()),
            "lengths": torch.from_numpy(monitor.episode_lengths.copy()),
            "observation": {key: torch.from_numpy(value.copy()) for key, value in model._last_obs.items()},
            "starts": torch.from_numpy(np.array(model._last_episode_starts, dtype=np.bool_)),
            "counts": {name: getattr(model, name) for name in _COUNTS if hasattr(model, name)},
            "memory": [torch.as_tensor(part).cpu().clone() for part in _memory(model)],
            "random": _random_states(),
        }
        if isinstance(model, DRQN):
            assert model.replay_buffer is not None
            state["exploring"] = model._rng.bit_generator.state
            state["replay"] = self._replay.save(model.replay_buffer)
        return state

    def saved(self) -> None:
        """The checkpoint with the latest state is on the disk: what earlier ones needed may be deleted."""
        self._replay.prune()

    def restore(self, model: BaseAlgorithm, state: Mapping[str, Any]) -> None:
        """Put a model and its environments into a state that :meth:`save` gave."""
        monitor, environment = _environments(model)
        environment.vector_env.restore_plain_state(state["environment"])
        monitor.episode_returns, monitor.episode_lengths = state["returns"].numpy(), state["lengths"].numpy()
        model._last_obs = {key: value.numpy() for key, value in state["observation"].items()}
        model._last_episode_starts = state["starts"].numpy()
        for name, value in state["counts"].items():
            setattr(model, name, value)
        memory = state["memory"]
        if any(part.shape[:2] != (1, environment.num_envs) for part in memory):
            raise ValueError("recurrent states of another number of environments")
        if isinstance(model, DRQN):
            assert model.replay_buffer is not None
            model._state = tuple(part.numpy() for part in memory) or None
            model._rng.bit_generator.state = state["exploring"]
            self._replay.load(model.replay_buffer, state["replay"])
        else:
            *actor, hidden, cell = (part.to(model.device) for part in memory)
            model._last_lstm_states = RNNStates((actor[0], actor[1]), (hidden, cell))  # type: ignore[attr-defined]
        _set_random_states(state["random"])


def _environments(model: BaseAlgorithm) -> tuple[VecMonitor, RestoreVecEnv]:
    environment = model.get_env()
    assert environment is not None
    monitor, inner = unwrap_vec_wrapper(environment, VecMonitor), environment.unwrapped
    assert isinstance(monitor, VecMonitor)
    assert isinstance(inner, RestoreVecEnv)
    return monitor, inner


def _memory(model: BaseAlgorithm) -> tuple[Any, ...]:
    """The recurrent states, PPO's of actor and critic."""
    if isinstance(model, DRQN):
        return model._state or ()
    states: Any = model._last_lstm_states  # type: ignore[attr-defined]
    return (*states.pi, *states.vf)


def _random_states() -> dict[str, Any]:
    """The states of the generators that PyTorch and NumPy share among all."""
    kind, keys, *numbers = np.random.get_state()  # noqa: NPY002 - Stable-Baselines3 draws from it
    assert isinstance(keys, np.ndarray)
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "torch": torch.get_rng_state(),
        "cuda": devices,
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), *numbers],
    }


def _set_random_states(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all(state["cuda"])
    kind, keys, *numbers = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *numbers))  # noqa: NPY002
