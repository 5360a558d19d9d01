"""Short programs: run them from the checkout, as ``python -m examples.random_agent``."""
