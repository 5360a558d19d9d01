"""What benchmarks share: published tables, the machine's facts, confidence intervals."""
