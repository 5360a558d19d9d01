"""Agents that compose toolchains: policies, whole-image restoration, training on Stable-Baselines3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agents.agent import RecurrentAgent, load_policy
    from agents.evaluation import Evaluation, evaluate
    from agents.restoration.restorer import Restoration, Restorer

__all__ = ["Evaluation", "RecurrentAgent", "Restoration", "Restorer", "evaluate", "load_policy"]

_HOMES = {
    "RecurrentAgent": "agent",
    "load_policy": "agent",
    "Evaluation": "evaluation",
    "evaluate": "evaluation",
    "Restoration": "restoration.restorer",
    "Restorer": "restoration.restorer",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, when it is asked for: the command line starts without torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"agents.{_HOMES[name]}"), name)
