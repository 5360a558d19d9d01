"""The x4 super-resolvers against published networks."""
