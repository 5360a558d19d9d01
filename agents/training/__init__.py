"""Training of agents by reinforcement learning."""
