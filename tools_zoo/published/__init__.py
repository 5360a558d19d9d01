"""Import of the published RL-Restore checkpoints."""
