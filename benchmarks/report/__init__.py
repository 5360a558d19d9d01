"""What benchmarks share: published tables and facts about the machine."""
