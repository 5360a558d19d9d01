"""Parsers of command-line arguments that must lie in a range."""

from __future__ import annotations

import argparse


def positive_float(text: str) -> float:
    """Parse an argument that must be a positive number."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value


def positive_int(text: str) -> int:
    """Parse an argument that must be a whole number of 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return value


def share(text: str) -> float:
    """Parse an argument that must lie in [0, 1]."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} does not lie in [0, 1]")
    return value
