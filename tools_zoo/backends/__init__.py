"""What runs the tools' networks, and their export."""
