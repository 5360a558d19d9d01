"""Restoration of whole images."""

CAUTION = 0.3
"""dB: smallest predicted gain for which a tool is applied, if a policy predicts gains."""
LEAST_GAIN = -1.0
"""dB: a tile that expects less of a tool counts so; some expect tens of dB less, where noise looks like texture."""
