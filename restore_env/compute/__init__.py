"""How computation uses the processor and its memory."""
