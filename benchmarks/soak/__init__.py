"""Damaged and altered files, given to everything that reads files: each must be used, or refused in one line."""
