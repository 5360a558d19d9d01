"""What ``python -m benchmarks.compare --json`` wrote, read again by what makes other tables of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.publishing import COMMAND
from restore_env.distortions import SEVERITIES

Measured = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Lines of a comparison by severity and method."""


@dataclass(frozen=True)
class Comparison:
    """A comparison on the protocol's severities."""

    measured: Measured
    methods: Mapping[str, Mapping[str, Any]]
    """What is the same on all severities, by method."""
    command: str
    """Repeats it."""


def read_comparison(path: Path) -> Comparison:
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
        methods = {method["name"]: method for method in record["methods"]}
        comparison = Comparison(measured, methods, str(record[COMMAND]))
        for line in (line for named in measured.values() for line in named.values()):
            float(line["estimates"]["psnr"]["mean"]), float(line["estimates"]["ssim"]["mean"]), str(line["title"])
            float(line["gmacs"]), float(line["milliseconds"]), methods[line["name"]]["cost"]
            bool(methods[line["name"]]["undertrained"])
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path}: not what python -m benchmarks.compare --json writes") from None
    if not measured:
        raise ValueError(f"{path}: compares on none of {', '.join(SEVERITIES)}")
    return comparison
