"""Comparisons: tools, agents and one-network baselines on the same data, and the tables of the documentation."""
