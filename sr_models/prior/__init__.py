"""The semantic prior: probability maps of eight categories."""
