"""Image restoration as a sequential decision problem: the environment."""
