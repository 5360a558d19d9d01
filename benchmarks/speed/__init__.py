"""Steps per second of environments and tools."""
