"""What the package promises about kills, signals, shared outputs, scarce resources, long runs and equal bits."""
