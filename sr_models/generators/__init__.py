"""The x4 generator networks."""

UPSCALE = 4
"""The upscale factor: how many times higher and wider a generator's output is than its input."""
