"""Weights on disk: safetensors with a few words of metadata, checked against the network that they are for."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from restore_env.images.files import write_atomically
from restore_env.plain_data import parse_json


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
    except UnicodeEncodeError:
        raise error(f"{path}: weights need a path that is UTF-8: rename its file or folder") from None
    except FileNotFoundError:
        raise error(f"{path}: no such file" + (f"; expected {expected}" if expected else "")) from None
    except (SafetensorError, OSError) as reason:
        raise error(f"{path}: not a readable safetensors file ({reason})") from None


def load_checkpoint(path: str | os.PathLike[str]) -> Any:
    """Read what ``torch.save`` wrote, without unpickling code, onto the CPU.

    A damaged file makes PyTorch raise nearly anything; its warnings about one are left out.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True)


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
    check_shapes(network, state, path, what, error)
    own = network.state_dict()
    if not all(value.dtype == own[key].dtype and bool(torch.isfinite(value).all()) for key, value in state.items()):
        raise error(f"{path}: weights must be finite float32 numbers")
    network.load_state_dict(dict(state))


def check_shapes(
    network: nn.Module,
    state: Mapping[str, Tensor],
    path: str | os.PathLike[str],
    what: str,
    error: type[ValueError] = ValueError,
) -> None:
    """Raise ``error`` unless names and shapes of tensors are those of a network, which may be on the device "meta".

    The arguments are those of :func:`load_state`.
    """
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    actual = {key: tuple(value.shape) for key, value in state.items()}
    if actual != expected:
        odd = next(key for key in sorted({*actual, *expected}) if actual.get(key) != expected.get(key))
        raise error(
            f"{path}: weights of another architecture; {what} has {odd} {expected.get(odd, 'not at all')},"
            f" the file has {actual.get(odd, 'none')}"
        )


def recipe_of(
    metadata: Mapping[str, str], path: str | os.PathLike[str], error: type[ValueError] = ValueError
) -> dict[str, Any]:
    """How weights were trained, as plain numbers and strings; empty if their file does not say.

    Args:
        metadata: of the file.
        path: the file, for the message.
        error: what is raised.

    Raises:
        ValueError: (or ``error``) the recipe is no JSON object, or what it names is not of the right kind.
    """
    recipe = parse_json(metadata.get("recipe", "{}"), f"{path}: recipe", error)
    _check_recipe(recipe, path, error)
    return dict(recipe)


_KINDS: Mapping[str, tuple[type, ...]] = MappingProxyType(
    {
        **dict.fromkeys(("steps", "seconds", "patches", "grown_after"), (int, float)),
        **dict.fromkeys(("command", "version"), (str,)),
        "earlier": (list,),
    }
)
"""What some entries of a recipe are; those whose name begins with ``psnr_`` are numbers, too."""


def _check_recipe(recipe: Any, path: str | os.PathLike[str], error: type[ValueError]) -> None:
    if not isinstance(recipe, dict):
        raise error(f"{path}: its recipe is {recipe!r}, expected an object")
    for name, value in recipe.items():
        kinds = (int, float) if name.startswith("psnr_") else _KINDS.get(name, (object,))
        if value is not None and (not isinstance(value, kinds) or (isinstance(value, bool) and object not in kinds)):
            raise error(f"{path}: its recipe has {name} {value!r}, expected {' or '.join(k.__name__ for k in kinds)}")
    for earlier in recipe.get("earlier") or []:
        _check_recipe(earlier, path, error)
