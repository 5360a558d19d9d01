"""Distortions of clean photographs."""
