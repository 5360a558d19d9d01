"""Policies without learned weights: heuristics and oracles."""
