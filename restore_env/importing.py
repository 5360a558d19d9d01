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
