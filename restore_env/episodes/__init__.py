"""Episodes: rules of a step, observations, batches, records and pictures."""
