"""Single networks that toolchains are compared with: catalog, networks, weights and training."""

from benchmarks.baselines.catalog import BASELINES, Baseline

__all__ = ["BASELINES", "Baseline"]
