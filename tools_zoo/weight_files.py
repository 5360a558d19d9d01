"""Weights on disk: safetensors with a few words of metadata, checked against the network that they are for."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from restore_env.images.files import write_atomically


def write_weights(path: str | os.PathLike[str], state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and metadata; the file appears whole or not at all."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    write_atomically(path, save(tensors, dict(metadata)))


def read_weights(
    path: str | os.PathLike[str], error: type[ValueError] = ValueError, expected: str = ""
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and metadata.

    Args:
        path: a safetensors file.
        error: what is raised.
        expected: what could be there if nothing is, for the message.

    Raises:
        ValueError: (or ``error``) the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            return {key: file.get_tensor(key) for key in file.keys()}, metadata  # noqa: SIM118 - not a mapping
    except FileNotFoundError:
        raise error(f"{path}: no such file" + (f"; expected {expected}" if expected else "")) from None
    except (SafetensorError, OSError) as reason:
        raise error(f"{path}: not a readable safetensors file ({reason})") from None


def load_state(
    network: nn.Module,
    state: Mapping[str, Tensor],
    path: str | os.PathLike[str],
    what: str,
    error: type[ValueError] = ValueError,
) -> None:
    """Put tensors into a network after checking that they are its own, and finite numbers of its types.

    Args:
        network: what to fill, in place.
        state: tensors by name.
        path: the file that they are from, for the message.
        what: the network's name, for the message.
        error: what is raised.

    Raises:
        ValueError: (or ``error``) names or shapes of another architecture, or numbers that are not finite float32.
    """
    own = network.state_dict()
    expected = {key: tuple(value.shape) for key, value in own.items()}
    actual = {key: tuple(value.shape) for key, value in state.items()}
    if actual != expected:
        odd = next(key for key in sorted({*actual, *expected}) if actual.get(key) != expected.get(key))
        raise error(
            f"{path}: weights of another architecture; {what} has {odd} {expected.get(odd, 'not at all')},"
            f" the file has {actual.get(odd, 'none')}"
        )
    if not all(value.dtype == own[key].dtype and bool(torch.isfinite(value).all()) for key, value in state.items()):
        raise error(f"{path}: weights must be finite float32 numbers")
    network.load_state_dict(dict(state))


def recipe_of(metadata: Mapping[str, str]) -> dict[str, Any]:
    """How weights were trained, as plain numbers and strings; empty if their file does not say."""
    try:
        recipe = json.loads(metadata.get("recipe", "{}"))
    except ValueError:
        return {}
    return recipe if isinstance(recipe, dict) else {}
