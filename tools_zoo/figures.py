"""matplotlib figures as files."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import Any

from restore_env.extras import require_extra
from restore_env.images.files import write_atomically

FORMATS = (".png", ".pdf", ".svg")
"""Suffixes of figures."""


def check_figure(path: str | os.PathLike[str]) -> None:
    """Check that a figure can be written: its suffix is one of :data:`FORMATS`, and matplotlib is installed.

    Raises:
        ValueError: it cannot; a :class:`restore_env.extras.MissingExtraError` where matplotlib is missing.
    """
    if Path(path).suffix.lower() not in FORMATS:
        raise ValueError(f"{path}: a figure ends in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    require_extra("plots", f"{path}: a figure")


def write_figure(path: str | os.PathLike[str], figure: Any) -> None:
    """Write a ``matplotlib.figure.Figure`` as PNG, PDF or SVG, by the suffix, atomically."""
    check_figure(path)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # names of files may be in any script
        figure.savefig(buffer, format=Path(path).suffix[1:].lower(), dpi=130, facecolor="white")
    write_atomically(path, buffer.getvalue())
