"""Agents against constant chains and oracles, and ablations."""
