"""What choosing tools is worth, and where it comes from."""
