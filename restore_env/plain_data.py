"""Data from files that a stranger may have written: JSON, names of files in it, and texts that are never imported."""

from __future__ import annotations

import json
import re
from typing import Any

from restore_env.errors import ImageRestoreError

DEEPEST = 32
"""Objects and lists inside one another that a file may have."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")


class FromFile(str):
    """A text that stands in a data file: :func:`restore_env.resolve.import_named` does not import what it names."""

    __slots__ = ()


def parse_json(text: str | bytes, name: object, error: type[ValueError] = ImageRestoreError) -> Any:
    """Parse JSON.

    Args:
        text: JSON, in UTF-8 if it is bytes.
        name: what errors call it, such as its file.
        error: what is raised.

    Raises:
        ValueError: (or ``error``) it is none, or nested deeper than :data:`DEEPEST`.
    """
    try:
        values = json.loads(text)
    except RecursionError:
        values = None
        deep = True
    except ValueError as reason:
        raise error(f"{name}: not JSON: {reason}") from None
    else:
        deep = _is_deeper(values, DEEPEST)
    if deep:
        raise error(f"{name}: not usable JSON: nested deeper than {DEEPEST}")
    return values


def is_file_name(text: object) -> bool:
    """Whether a text is safe as the name of a file in a folder, without its suffix: letters, digits, _ and -."""
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


def _is_deeper(values: Any, depth: int) -> bool:
    level = [values]
    for _ in range(depth + 1):
        nested = [each for each in level if isinstance(each, (dict, list))]
        level = [item for each in nested for item in (each.values() if isinstance(each, dict) else each)]
        if not level:
            return False
    return any(isinstance(each, (dict, list)) for each in level)
