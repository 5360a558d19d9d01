"""Agents that compose toolchains."""
