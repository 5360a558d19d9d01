"""The tools: their table, networks, weights and training."""
