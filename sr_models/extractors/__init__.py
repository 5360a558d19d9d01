"""Frozen networks that give features of images."""
