"""What an import string, ``"package.module:name"``, stands for: how this room reaches those to its right."""

from __future__ import annotations

import importlib
from typing import Any


def import_named(text: str, what: str, expected: str) -> Any:
    """Import what ``"package.module:name"`` names.

    Args:
        text: the import string.
        what: what it is the value of, for the errors.
        expected: what else would have done, for the errors.

    Raises:
        ValueError: a string of another form, or one that names nothing that can be imported.
    """
    module, separator, name = text.partition(":")
    if not (module and separator and name):
        raise ValueError(f"{what} {text!r}: expected {expected}")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError, OSError) as error:
        raise ValueError(f"{what} {text!r} cannot be imported: {' '.join(str(error).split())}") from None


def import_made(text: str, what: str, expected: str, kinds: type | tuple[type, ...]) -> Any:
    """What an import string stands for: what its factory makes, or what it names if that is one of ``kinds`` already.

    Raises:
        ValueError: as :func:`import_named`, or a factory that fails.
    """
    found = import_named(text, what, expected)
    if not callable(found) or (isinstance(found, kinds) and not isinstance(found, type)):
        return found
    try:
        return found()
    except Exception as error:  # anybody's code
        raise ValueError(f"{what} {text!r}: the factory failed: {type(error).__name__}: {error}") from error
