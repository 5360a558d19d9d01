"""Training of the tools, alone and jointly, and the trainer that all networks share."""
