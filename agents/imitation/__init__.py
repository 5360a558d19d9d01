"""Imitation learning from oracles."""
