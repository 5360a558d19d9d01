"""Damaged files, kills, signals, scarce resources and long runs: what becomes of everything that meets them."""
