"""Restoration of whole images."""
