"""Algorithms trained from random weights on a level set, and compared on another: ``python -m benchmarks.agents``."""
