"""Optional packages: which extra brings them, and the error where one is missing."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from types import MappingProxyType

from restore_env.errors import ImageRestoreError

EXTRAS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "app": ("gradio", "matplotlib"),
        "heif": ("pillow_heif",),
        "judges": ("flip_evaluator", "ssimulacra2"),
        "ncnn": ("ncnn",),
        "onnx": ("onnx", "onnxscript", "onnxruntime"),
        "plots": ("matplotlib",),
        "ray": ("ray", "pandas", "pyarrow"),
        "semantics": ("transformers",),
        "train": ("tensorboard", "matplotlib", "rich"),
    }
)
"""What is imported from the packages of an extra, by the extra's name in ``pyproject.toml``."""


class MissingExtraError(ImageRestoreError, ImportError):
    """A package of an extra is not installed; the message says how to install it."""


def has_extra(extra: str) -> bool:
    """Whether the packages of an extra, a key of :data:`EXTRAS`, are installed."""
    return all(importlib.util.find_spec(name) is not None for name in EXTRAS[extra])


def require_extra(extra: str, what: str, error: type[Exception] = MissingExtraError) -> None:
    """Check that the packages of an extra are installed, without importing them.

    Args:
        extra: a key of :data:`EXTRAS`.
        what: what needs them; the message begins with it.
        error: the exception that is raised.

    Raises:
        MissingExtraError: or ``error``: one is not installed; one line that names it and the extra.
    """
    missing = next((name for name in EXTRAS[extra] if importlib.util.find_spec(name) is None), None)
    if missing is not None:
        raise error(f"{what} needs {missing}, which is not installed: pip install 'imagerestore[{extra}]'")
