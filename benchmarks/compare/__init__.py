"""Toolchains against single networks on the same images."""
