"""Training of the super-resolvers and of the semantic prior."""
