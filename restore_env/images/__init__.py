"""Images: reading and writing files, sets of photographs, tiles."""
