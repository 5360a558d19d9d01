"""The x4 generator networks."""
