"""How computation uses the processor and its memory, signals, temporary files and standard error."""
