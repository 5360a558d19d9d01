"""What ``python -m benchmarks.compare --json`` wrote, read again by what makes other tables of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.publishing import COMMAND
from restore_env.distortions.protocol import SEVERITIES

Measured = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Lines of a comparison by severity and method."""


@dataclass(frozen=True)
class RecordedComparison:
    """A comparison on the protocol's severities."""

    measured: Measured
    methods: Mapping[str, Mapping[str, Any]]
    """What is the same on all severities, by method; each has a line on every severity."""
    command: str
    """Repeats it."""


def read_comparison(path: Path) -> RecordedComparison:
    """Read a comparison's lines on the protocol's severities; what else it measured is left out.

    Raises:
        ValueError: no such file, not what the comparison writes, or no severity of the protocol in it.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        measured = {
            severity: {line["name"]: line for line in record["severities"][severity]}
            for severity in SEVERITIES
            if severity in record["severities"]
        }
        comparison = RecordedComparison(
            measured, {method["name"]: method for method in record["methods"]}, record[COMMAND]
        )
        _check(comparison)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path}: not what python -m benchmarks.compare --json writes") from None
    if not measured:
        raise ValueError(f"{path}: compares on none of {', '.join(SEVERITIES)}")
    return comparison


def _check(comparison: RecordedComparison) -> None:
    """Raise ``ValueError``, ``KeyError`` or ``TypeError`` if something that tables are made of is not there."""
    if not comparison.methods:
        raise ValueError("no method")
    numbers, words = [], [comparison.command]
    for name, method in comparison.methods.items():
        words.append(method["title"])
        numbers += [method["undertrained"], *([method["cost"]["seconds_per_megapixel"]] if method["cost"] else [])]
        for named in comparison.measured.values():
            line = named[name]
            words.append(line["title"])
            numbers += [line["estimates"][metric]["mean"] for metric in ("psnr", "ssim")]
            numbers += [line["gmacs"], line["milliseconds"]]
    if any(set(named) != set(comparison.methods) for named in comparison.measured.values()):
        raise ValueError("a line of no method")
    if not all(isinstance(number, (int, float)) for number in numbers) or not all(isinstance(w, str) for w in words):
        raise TypeError("a number or a word was expected")
