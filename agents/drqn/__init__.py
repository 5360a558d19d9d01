"""DRQN, deep recurrent Q-learning, for Stable-Baselines3."""
