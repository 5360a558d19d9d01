"""One-network rivals of toolchains: their table, networks, weights and training."""

from benchmarks.baselines.catalog import BASELINES, Baseline

__all__ = ["BASELINES", "Baseline"]
