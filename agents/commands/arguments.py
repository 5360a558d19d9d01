"""Command-line arguments that commands share."""

from __future__ import annotations

import argparse


def add_backend(parser: argparse.ArgumentParser) -> None:
    """Add what runs the tools: ``--backend``."""
    parser.add_argument(
        "--backend",
        default="torch",
        metavar="NAME",
        help="what runs the tools on a CPU: torch (default), eager, or, with its extra, ncnn, the fastest for the"
        " default tools",
    )
